"""Every format: inspected, read, overlaid and exported, judged by qemu-img on the host."""

import hashlib
import json
import mmap
import os
import struct
import subprocess
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from adapters.formats import vhd_footer
from adapters.images import Policy, QemuImages, maps
from adapters.images.maps import KEPT
from adapters.process.sandbox import Sandbox
from adapters.qemu import img
from fixtures.images import MIB, SAMPLE_SIZE, SNAPSHOT, VARIANTS, write_sample
from pipeline.errors import Conflict, InvalidParameter, NoSpace, NotFound, UnsafeImage
from pipeline.ports import Chain, ImageFormat, Layer
from pipeline.ports.extents import Kind, Range
from tests.contract.storing import pattern

pytestmark = pytest.mark.system
IMAGES = QemuImages(Sandbox())
DRIVERS = {ImageFormat.VHD: "vpc"}


@dataclass(frozen=True, slots=True)
class Sample:
    raw: Path
    layers: dict[str, Layer]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    directory = tmp_path_factory.mktemp("images")
    raw = directory / "sample.raw"
    write_sample(raw)
    return Sample(raw, {name: v.build(raw, directory, name) for name, v in VARIANTS.items()})


def tool(*argv: str | Path) -> str:
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def name_of(chain: Chain) -> str:
    """qemu's name of a chain on the host, put together apart from galleria's."""
    tree: dict[str, object] | None = None
    for layer in reversed(chain):
        tree = {
            "driver": DRIVERS.get(layer.format, layer.format.value),
            "file": {"driver": "file", "filename": str(layer.path)},
            **({"backing": tree} if layer.format is not ImageFormat.RAW else {}),
            **({"force_size_calc": "current_size"} if layer.format is ImageFormat.VHD else {}),
        }
    return "json:" + json.dumps(tree)


def oracle(chain: Chain, directory: Path) -> str:
    """sha256 of what qemu-img makes of a chain."""
    flat = directory / "flat.raw"
    select = (
        ["-l", f"snapshot.name={chain[0].internal_snapshot}"] if chain[0].internal_snapshot else []
    )
    tool("qemu-img", "convert", "-O", "raw", *select, name_of(chain), flat)
    digest = tool("sha256sum", flat).split()[0]
    flat.unlink()
    return digest


def digest_of(chain: Chain, images: QemuImages = IMAGES) -> str:
    """sha256 of what galleria reads: data read, the rest taken as zero."""
    sha = hashlib.sha256()
    with images.open(chain) as source:
        for extent in source.extents():
            buffer = bytearray(extent.length)
            if extent.kind is Kind.DATA:
                source.read_into(memoryview(buffer), extent)
            sha.update(buffer)
    return sha.hexdigest()


@pytest.mark.parametrize("name", VARIANTS)
def test_a_good_image_is_recognised_and_left_as_it_was(name: str, sample: Sample) -> None:
    layer, variant = sample.layers[name], VARIANTS[name]
    before = (tool("sha256sum", layer.path), layer.path.stat().st_mtime_ns)
    facts = IMAGES.inspect(layer.path)
    assert facts.refusals == ()
    assert (facts.format, facts.variant) == (variant.format, variant.called)
    assert facts.virtual_size == SAMPLE_SIZE
    assert facts.file_size == layer.path.stat().st_size
    assert facts.logical_sector_size == 512
    assert facts.snapshots == ((SNAPSHOT,) if variant.snapshot else ())
    assert IMAGES.inspect(layer.path, declared=variant.format).refusals == ()
    assert (tool("sha256sum", layer.path), layer.path.stat().st_mtime_ns) == before


@pytest.mark.parametrize("name", VARIANTS)
def test_a_larger_image_is_recognised_too(name: str, tmp_path: Path) -> None:
    """More data than any reader looks at: headers and footers lie far apart."""
    raw = tmp_path / "larger.raw"
    raw.write_bytes(b"\xeb\x63\x90" + pattern(1, 16 * MIB - 3))
    layer = VARIANTS[name].build(raw, tmp_path, name)
    facts = IMAGES.inspect(layer.path)
    assert (facts.refusals, facts.variant) == ((), VARIANTS[name].called)
    assert digest_of((layer,)) == tool("sha256sum", raw).split()[0]


@pytest.mark.parametrize("name", VARIANTS)
def test_galleria_reads_what_qemu_reads(name: str, sample: Sample, tmp_path: Path) -> None:
    chain = (sample.layers[name],)
    assert digest_of(chain) == oracle(chain, tmp_path)


def test_the_present_of_an_image_with_a_snapshot(sample: Sample, tmp_path: Path) -> None:
    present = (Layer(sample.layers["qcow2-snapshot"].path, ImageFormat.QCOW2),)
    assert digest_of(present) == oracle(present, tmp_path)
    assert digest_of(present) != digest_of((sample.layers["qcow2-snapshot"],))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_changed_overlay_is_read_as_qemu_reads_it(
    name: str, sample: Sample, tmp_path: Path
) -> None:
    before = tool("sha256sum", sample.layers[name].path)
    chain = IMAGES.create_overlay((sample.layers[name],), tmp_path / "overlay.qcow2")
    changes = (
        f"write -q -P 0x11 0 64k; write -q -P 0x22 5M 100k; write -q -z 12M 1M; discard -q 13M 1M; "
        f"write -q -P 0x33 {SAMPLE_SIZE - 512} 512"
    )
    for change in changes.split("; "):
        tool("qemu-io", "-c", change, name_of(chain))
    assert digest_of(chain) == oracle(chain, tmp_path)
    second = IMAGES.create_overlay(chain, tmp_path / "second.qcow2")
    tool("qemu-io", "-c", "write -q -P 0x44 2M 3M", name_of(second))
    assert digest_of(second) == oracle(second, tmp_path)
    assert tool("sha256sum", sample.layers[name].path) == before
    assert IMAGES.inspect(chain[0].path).refusals


def test_the_overlay_names_its_chain_for_the_sandbox_only(sample: Sample, tmp_path: Path) -> None:
    chain = IMAGES.create_overlay((sample.layers["vhd-dynamic-chs"],), tmp_path / "o.qcow2")
    info = json.loads(tool("qemu-img", "info", "--output=json", "-f", "qcow2", chain[0].path))
    tree = json.loads(info["backing-filename"].removeprefix("json:"))
    assert tree["force_size_calc"] == "current_size"
    assert tree["file"]["filename"].startswith("/in/")
    assert info["backing-filename-format"] == "vpc"
    assert str(sample.layers["vhd-dynamic-chs"].path) not in info["backing-filename"]
    assert info["virtual-size"] == SAMPLE_SIZE


def test_without_a_sandbox_the_same_is_read(sample: Sample, tmp_path: Path) -> None:
    images = QemuImages(Sandbox(enabled=False))
    for name in ("qcow2", "qcow2-zstd", "vhdx-dynamic"):
        assert images.inspect(sample.layers[name].path).refusals == ()
        chain = images.create_overlay((sample.layers[name],), tmp_path / f"{name}.overlay")
        assert digest_of(chain, images) == oracle(chain, tmp_path)


# --- refusals ----------------------------------------------------------------------------------


def test_what_is_no_image_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        IMAGES.inspect(tmp_path / "absent")
    with pytest.raises(UnsafeImage, match="not a regular file"):
        IMAGES.inspect(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UnsafeImage, match="not a regular file"):
        IMAGES.inspect(tmp_path / "fifo")
    (tmp_path / "empty").touch()
    with pytest.raises(UnsafeImage, match="is empty"):
        IMAGES.inspect(tmp_path / "empty")


def test_a_chain_is_what_was_declared(sample: Sample, tmp_path: Path) -> None:
    qcow2, raw = sample.layers["qcow2"], sample.layers["raw"]
    with pytest.raises(UnsafeImage, match="has no backing file"), IMAGES.open((qcow2, raw)):
        pass
    overlay = IMAGES.create_overlay((raw,), tmp_path / "overlay")
    with pytest.raises(UnsafeImage, match="backing file"), IMAGES.open(overlay[:1]):
        pass
    lie = Layer(qcow2.path, ImageFormat.VHDX)
    with pytest.raises(UnsafeImage, match="header"), IMAGES.open((lie,)):
        pass
    unknown = Layer(qcow2.path, ImageFormat.QCOW2, "nosuch")
    with pytest.raises(UnsafeImage, match="no snapshot 'nosuch'"), IMAGES.open((unknown,)):
        pass


def test_a_guest_that_holds_a_hostile_image_is_harmless(sample: Sample, tmp_path: Path) -> None:
    """The payload is data: nothing looks into the disk, whatever format carries it."""
    raw = tmp_path / "nested.raw"
    raw.write_bytes(sample.raw.read_bytes())
    payload = bytearray(sample.layers["qcow2"].path.read_bytes()[: 2 * MIB])
    struct.pack_into(">QQI", payload, 8, 1024, 0, 0)
    with raw.open("r+b") as file:
        file.seek(MIB)
        file.write(payload)
    want = tool("sha256sum", raw).split()[0]
    for name, variant in VARIANTS.items():
        if variant.snapshot is None:
            layer = variant.build(raw, tmp_path, name)
            assert IMAGES.inspect(layer.path).refusals == ()
            assert digest_of((layer,)) == want
            layer.path.unlink()


def test_an_image_in_use_is_noticed(sample: Sample, tmp_path: Path) -> None:
    """(A raw one's writers are its pin's to notice: test_sources.)"""
    layer = VARIANTS["qcow2"].build(sample.raw, tmp_path, "used")
    argv = ["qemu-io", "-f", "qcow2", str(layer.path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.read(7) == b"qemu-io"  # its prompt: the image is open
        (refusal,) = IMAGES.inspect(layer.path).refusals
        writer.stdin.close()
    assert "another program has it open" in refusal
    assert IMAGES.inspect(layer.path).refusals == ()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Chain]:
    """The disks that qemu has been asked to map."""
    chains: list[Chain] = []
    ask = img.map_extents

    def counted(sandbox: Sandbox, chain: Chain) -> IO[bytes]:
        chains.append(chain)
        return ask(sandbox, chain)

    monkeypatch.setattr(img, "map_extents", counted)
    return chains


def test_a_map_is_asked_for_once_and_again_when_the_file_changed(
    sample: Sample, tmp_path: Path, asked: list[Chain]
) -> None:
    images = QemuImages(Sandbox())
    layer = VARIANTS["qcow2"].build(sample.raw, tmp_path, "mapped")
    time.sleep(0.1)
    assert images.inspect(layer.path).refusals == ()
    before = [digest_of((layer,), images) for _ in range(3)]
    assert len(asked) == 1
    facts = layer.path.stat()
    tool("qemu-io", "-f", "qcow2", "-c", "write -q -P 0x77 9M 1M", layer.path)
    os.utime(layer.path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # the change time tells
    assert digest_of((layer,), images) not in before
    assert digest_of((layer,), images) == oracle((layer,), tmp_path)
    # what is kept is little, and goes with its keeper
    others = [VARIANTS["qcow2"].build(sample.raw, tmp_path, f"m{n}") for n in range(6)]
    time.sleep(0.1)
    open_files = descriptors()
    for other in others:
        digest_of((other,), images)
    assert descriptors() <= open_files + KEPT
    del images
    assert descriptors() < open_files


def test_a_file_that_was_changed_just_now_is_mapped_again(
    sample: Sample, tmp_path: Path, asked: list[Chain], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next change may come within the same tick of the clock."""
    monkeypatch.setattr(maps, "TICKS", 1000.0)
    layer = VARIANTS["qcow2"].build(sample.raw, tmp_path, "fresh")
    images = QemuImages(Sandbox())
    assert digest_of((layer,), images) == digest_of((layer,), images)
    assert len(asked) == 2


def test_limits_come_from_the_policy(sample: Sample) -> None:
    small = QemuImages(Sandbox(), Policy(virtual_size=SAMPLE_SIZE - 512))
    (refusal,) = small.inspect(sample.layers["qcow2"].path).refusals
    assert "over the limit" in refusal
    tight = QemuImages(Sandbox(), Policy(ratio=1))
    (refusal,) = tight.inspect(sample.layers["qcow2-zlib"].path).refusals
    assert "unpacks to" in refusal


# --- export ------------------------------------------------------------------------------------

EXPORTS = [
    (ImageFormat.RAW, "", "raw"),
    (ImageFormat.VHD, "dynamic", "dynamic"),
    (ImageFormat.VHDX, "", "dynamic"),
    (ImageFormat.VHDX, "fixed", "fixed"),
    (ImageFormat.QCOW2, "", "v3 zlib"),
    (ImageFormat.QCOW2, "zlib", "v3 zlib"),
    (ImageFormat.QCOW2, "zstd", "v3 zstd"),
    (ImageFormat.VMDK, "", "monolithicSparse"),
    (ImageFormat.VMDK, "streamOptimized", "streamOptimized"),
    (ImageFormat.VDI, "", "dynamic"),
    (ImageFormat.VDI, "fixed", "fixed"),
]


@pytest.mark.parametrize(("format", "subformat", "called"), EXPORTS)
def test_an_export_is_the_same_disk(
    format: ImageFormat, subformat: str, called: str, sample: Sample, tmp_path: Path
) -> None:
    source = (sample.layers["vhd-dynamic-chs"],)
    out = tmp_path / "out.img"
    IMAGES.export(source, out, format, subformat=subformat)
    made = (Layer(out, format),)
    tool("qemu-img", "compare", name_of(made), name_of(source))
    info = json.loads(tool("qemu-img", "info", "--output=json", name_of(made)))
    assert info["virtual-size"] == SAMPLE_SIZE
    facts = IMAGES.inspect(out)
    assert (facts.format, facts.variant, facts.refusals) == (format, called, ())
    assert oracle(made, tmp_path) == tool("sha256sum", sample.raw).split()[0]
    assert [path.name for path in tmp_path.iterdir()] == ["out.img"]


def test_a_snapshot_and_an_overlay_are_exported(sample: Sample, tmp_path: Path) -> None:
    want = tool("sha256sum", sample.raw).split()[0]
    snapshot = (sample.layers["qcow2-snapshot"],)
    overlay = IMAGES.create_overlay((sample.layers["vhdx-blocks"],), tmp_path / "overlay")
    for number, chain in enumerate((snapshot, overlay)):
        for format in (ImageFormat.RAW, ImageFormat.VHDX):
            out = tmp_path / f"{number}-{format.value}"
            IMAGES.export(chain, out, format)
            assert oracle((Layer(out, format),), tmp_path) == want


@pytest.mark.parametrize("name", ["raw", "qcow2-zstd", "vhdx-dynamic", "qcow2-snapshot"])
def test_a_fixed_vhd_is_what_azure_takes(name: str, sample: Sample, tmp_path: Path) -> None:
    out = tmp_path / "out.vhd"
    IMAGES.export((sample.layers[name],), out, ImageFormat.VHD)
    assert vhd_footer.azure_upload_problems(out) == ()
    padded = -(-SAMPLE_SIZE // MIB) * MIB
    assert out.stat().st_size == padded + 512
    assert out.stat().st_blocks * 512 < SAMPLE_SIZE * 0.6
    content = out.read_bytes()
    assert content[:SAMPLE_SIZE] == sample.raw.read_bytes()
    assert not any(content[SAMPLE_SIZE:padded])
    # qemu, told nothing but the format, sees the whole disk
    info = json.loads(tool("qemu-img", "info", "--output=json", "-f", "vpc", out))
    assert info["virtual-size"] == padded
    assert IMAGES.inspect(out).refusals == ()


def test_a_gpt_is_whole_after_padding(tmp_path: Path) -> None:
    raw, out = tmp_path / "gpt.raw", tmp_path / "gpt.vhd"
    raw.touch()
    os.truncate(raw, 24 * MIB + 512 * 9)
    script = "label: gpt\nstart=2048, size=8192, type=linux\nstart=10240, type=linux\n"
    subprocess.run(
        ["sfdisk", "-q", "--no-reread", raw], input=script.encode(), check=True, capture_output=True
    )
    before = json.loads(tool("sfdisk", "--json", raw))["partitiontable"]
    IMAGES.export((Layer(raw, ImageFormat.RAW),), out, ImageFormat.VHD)
    os.truncate(out, 25 * MIB)
    after = json.loads(tool("sfdisk", "--json", out))["partitiontable"]
    assert "No errors detected" in tool("sfdisk", "--verify", out)
    assert [(p["start"], p["size"], p["uuid"]) for p in after["partitions"]] == [
        (p["start"], p["size"], p["uuid"]) for p in before["partitions"]
    ]
    assert after["id"] == before["id"]
    content = out.read_bytes()
    backup = content[-512:]
    assert backup.startswith(b"EFI PART")
    assert struct.unpack_from("<Q", content, 512 + 32)[0] == 25 * MIB // 512 - 1
    assert struct.unpack_from("<I", backup, 16)[0] == zlib.crc32(
        backup[:16] + bytes(4) + backup[20:92]
    )
    # the primary lost: partition tools find the disk again by its backup
    assert content.count(b"EFI PART") == 2


@pytest.mark.parametrize(
    ("format", "subformat"),
    [
        (ImageFormat.RAW, ""),
        (ImageFormat.VHD, "dynamic"),
        (ImageFormat.VHDX, ""),
        (ImageFormat.QCOW2, "zstd"),
        (ImageFormat.VMDK, "streamOptimized"),
        (ImageFormat.VDI, ""),
    ],
)
def test_what_the_guest_does_not_use_is_not_exported(
    format: ImageFormat, subformat: str, sample: Sample, tmp_path: Path
) -> None:
    free = (Range(0, 512), Range(MIB - 1536, 200 * 1024), Range(4 * MIB, 5 * MIB))
    want = bytearray(sample.raw.read_bytes())
    for hole in free:
        want[hole.start : hole.end] = bytes(hole.length)
    for name in ("vhdx-blocks", "qcow2-snapshot"):
        out = tmp_path / name
        chain = (sample.layers[name],)
        IMAGES.export(chain, out, format, subformat=subformat, free=free)
        assert oracle((Layer(out, format),), tmp_path) == hashlib.sha256(want).hexdigest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["qcow2-snapshot", "vhdx-blocks"]


def test_an_export_never_replaces(sample: Sample, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"mine")
    for format in (ImageFormat.RAW, ImageFormat.VHD, ImageFormat.QCOW2):
        with pytest.raises(Conflict):
            IMAGES.export((sample.layers["raw"],), out, format)
    with pytest.raises(Conflict):
        IMAGES.create_overlay((sample.layers["raw"],), out)
    assert out.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("format", "subformat"),
    [(ImageFormat.RAW, "zlib"), (ImageFormat.VHD, "x"), (ImageFormat.QCOW2, "lzma")],
)
def test_unknown_subformats_are_named(
    format: ImageFormat, subformat: str, sample: Sample, tmp_path: Path
) -> None:
    with pytest.raises(InvalidParameter, match=f"no subformat '{subformat}'"):
        IMAGES.export((sample.layers["raw"],), tmp_path / "out", format, subformat=subformat)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", [ImageFormat.RAW, ImageFormat.VHD, ImageFormat.VHDX])
def test_a_full_file_system_leaves_nothing(
    format: ImageFormat, sample: Sample, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], check=True)
    try:
        with pytest.raises(NoSpace, match="no space left"):
            IMAGES.export((sample.layers["qcow2"],), small / "out", format)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_scrub_reads_the_medium(sample: Sample) -> None:
    layer = sample.layers["raw"]
    cached = ("fincore", "--bytes", "--noheadings", "--output", "RES", layer.path)
    want = digest_of((layer,))
    assert int(tool(*cached)) > 2 * MIB
    sha = hashlib.sha256()
    with IMAGES.open((layer,), cached=False) as source:
        # what lies around the first and last bytes has been looked at
        assert int(tool(*cached)) < 64 << 10
        for extent in source.extents():
            for start in range(extent.start, extent.end, MIB):
                part = extent.part(start, min(start + MIB, extent.end))
                with mmap.mmap(-1, MIB) as buffer:  # aligned, as the copy loop's are
                    if part.kind is Kind.DATA:
                        with memoryview(buffer)[: part.length] as view:
                            source.read_into(view, part)
                    sha.update(buffer[: part.length])
    assert sha.hexdigest() == want
    # the disk's odd end went through the cache, and what the kernel reads ahead of it
    assert int(tool(*cached)) < 256 << 10
    with IMAGES.open((layer,), cached=False) as source:
        data = next(extent for extent in source.extents() if extent.kind is Kind.DATA)
        odd = memoryview(bytearray(data.length + 1))[1:]
        source.read_into(odd, data)
        assert odd == layer.path.read_bytes()[: data.length]
