"""Node trees and maps: what is said to qemu-img, and what is believed of it."""

import json
import tempfile
from pathlib import Path

import pytest

from adapters.process.sandbox import Sandbox
from adapters.qemu import img
from pipeline.errors import InvalidParameter, StageFailed, UnsafeImage
from pipeline.ports import Chain, ImageFormat, Layer
from pipeline.ports.extents import Extent, Kind

SANDBOX = Sandbox()
TOP, MIDDLE, BOTTOM = Path("/a/top"), Path("/a/middle"), Path("/a/bottom")


def chain(*formats: ImageFormat) -> Chain:
    return tuple(
        Layer(path, format) for path, format in zip((TOP, MIDDLE, BOTTOM), formats, strict=False)
    )


def file(path: Path, *, read_only: bool = True) -> dict[str, object]:
    named: dict[str, object] = {"driver": "file", "filename": SANDBOX.name(path)}
    return named | ({"read-only": True} if read_only else {})


def test_every_layer_is_named_and_nothing_lies_below_the_last() -> None:
    tree = img.node(chain(ImageFormat.QCOW2, ImageFormat.QCOW2, ImageFormat.VHD), SANDBOX)
    assert tree == {
        "driver": "qcow2",
        "read-only": True,
        "file": file(TOP),
        "backing": {
            "driver": "qcow2",
            "read-only": True,
            "file": file(MIDDLE),
            "backing": {
                "driver": "vpc",
                "force_size_calc": "current_size",
                "read-only": True,
                "file": file(BOTTOM),
                "backing": None,
            },
        },
    }


def test_only_the_top_can_be_written() -> None:
    tree = img.node(chain(ImageFormat.QCOW2, ImageFormat.RAW), SANDBOX, writable=True)
    assert tree == {
        "driver": "qcow2",
        "file": file(TOP, read_only=False),
        "backing": {"driver": "raw", "read-only": True, "file": file(MIDDLE)},
    }


def test_a_reference_in_a_header_has_no_options_that_a_reader_may_not_know() -> None:
    name = img.backing_name(chain(ImageFormat.QCOW2, ImageFormat.VHD), SANDBOX)
    assert name.startswith("json:{")
    assert "read-only" not in name
    assert json.loads(name.removeprefix("json:"))["backing"]["force_size_calc"] == "current_size"


def test_nine_layers_fit_into_a_header() -> None:
    """Eight deltas on a raw base, the deepest that a zone makes."""
    layers = tuple(Layer(Path(f"/zone/bases/{n}"), ImageFormat.QCOW2) for n in range(8))
    name = img.backing_name((*layers, Layer(BOTTOM, ImageFormat.RAW)), SANDBOX)
    assert len(name) <= img.BACKING_NAME_LIMIT


@pytest.mark.parametrize(
    ("size", "backing", "format", "cluster"),
    [
        (0, None, None, 65536),
        (513, None, None, 65536),
        (512, "x", None, 65536),
        (512, None, "raw", 65536),
        (512, None, None, 1000),
        (512, "x" * 1024, "raw", 65536),
    ],
)
def test_what_no_qcow2_can_be_is_not_asked_for(
    size: int, backing: str | None, format: str | None, cluster: int, tmp_path: Path
) -> None:
    with pytest.raises(InvalidParameter):
        img.create_qcow2(
            SANDBOX,
            tmp_path / "x",
            size,
            backing=backing,
            backing_format=format,
            cluster_size=cluster,
        )
    assert list(tmp_path.iterdir()) == []


def test_an_empty_chain_is_no_disk() -> None:
    with pytest.raises(InvalidParameter):
        img.node((), SANDBOX)


def test_a_snapshot_is_chosen_by_name_whatever_it_is_called() -> None:
    assert img.snapshot_option("a,snapshot.id=1") == "snapshot.name=a,,snapshot.id=1"


def entry(start: int, length: int, *, zero: bool = False, data: bool = True, **more: int) -> str:
    return json.dumps(
        {"start": start, "length": length, "depth": 0, "zero": zero, "data": data} | more
    )


def parsed(*entries: str, size: int) -> list[Extent]:
    with tempfile.TemporaryFile() as output:
        output.write(("[" + ",\n".join(entries) + "]\n").encode())
        output.flush()
        return list(img.parse_map(output, size))


def test_a_map_is_data_with_places_and_zeros() -> None:
    assert parsed(
        entry(0, 512, offset=4096, depth=1),
        entry(512, 512),
        entry(1024, 512, zero=True, data=False),
        entry(1536, 512, data=False),
        entry(2048, 512, zero=True, offset=8192),
        size=2560,
    ) == [
        Extent(0, 512, Kind.DATA, 1, 4096),
        Extent(512, 512, Kind.DATA),
        Extent(1024, 512, Kind.ZERO),
        Extent(1536, 512, Kind.ZERO),
        Extent(2048, 512, Kind.ZERO),
    ]


def test_what_lies_past_the_end_is_cut() -> None:
    assert parsed(entry(0, 4096, offset=0), entry(4096, 512), size=1536) == [
        Extent(0, 1536, Kind.DATA, 0, 0)
    ]


@pytest.mark.parametrize(
    "entries",
    [
        (),
        (entry(0, 512),),
        (entry(512, 1024),),
        (entry(0, 1024), entry(512, 1024)),
        (entry(0, 512), entry(1024, 512)),
        (entry(0, 0), entry(0, 1536)),
        (entry(0, -512),),
    ],
)
def test_a_map_with_gaps_or_overlaps_is_refused(entries: tuple[str, ...]) -> None:
    with pytest.raises(UnsafeImage, match="the map of a disk"):
        parsed(*entries, size=1536)


@pytest.mark.parametrize("text", ["nonsense", '{"start": 0}', "[1, 2]", '{"start": "x"}'])
def test_what_is_no_map_is_an_error(text: str) -> None:
    with pytest.raises(StageFailed, match="qemu-img map answered"):
        parsed(text, size=512)
