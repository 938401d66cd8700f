"""What was pinned is what is read: by galleria, and by every program that it gives a disk to.

The directory of the source is renamed while it is pinned, another file of the same name is put at
its path, and all is put back before anybody looks.
"""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters.filesystem import calls
from adapters.images import QemuImages
from adapters.pins import FilePins
from adapters.process.sandbox import Sandbox
from adapters.qemu import img, nbd
from pipeline.ports import Chain, ImageFormat, Layer
from tests.contract.storing import pattern

MIB = 1 << 20
TRUE, FALSE = pattern(1, MIB) + bytes(MIB), pattern(2, 2 * MIB)
FORMATS = ("raw", "qcow2", "compressed", "vmdk")


def image(path: Path, content: bytes, kind: str) -> ImageFormat:
    """A disk with a content, in a new directory."""
    path.parent.mkdir()
    raw = path.with_suffix(".content")
    raw.write_bytes(content)
    format = "qcow2" if kind == "compressed" else kind
    options = ["-c"] if kind == "compressed" else []
    subprocess.run(["qemu-img", "convert", "-O", format, *options, raw, path], check=True)
    raw.unlink()
    return ImageFormat(format)


@contextlib.contextmanager
def swapped(directory: Path) -> Iterator[None]:
    """Another file at the path, and everything as it was at the end."""
    aside = directory.with_name("aside")
    directory.rename(aside)
    directory.with_name("impostor").rename(directory)
    try:
        yield
    finally:
        directory.rename(directory.with_name("impostor"))
        aside.rename(directory)


def by_galleria(images: QemuImages, chain: Chain, work: Path) -> bytes:
    out = work / "plain.raw"
    images.export(chain, out, ImageFormat.RAW)
    return out.read_bytes()


def by_qemu_img(images: QemuImages, chain: Chain, work: Path) -> bytes:
    out = work / "out" / "converted.raw"
    out.parent.mkdir()
    img.convert(
        images._sandbox, chain, out, "raw", options=(), compressed=False, limits=img.WORKING
    )
    return out.read_bytes()


def by_qemu_nbd(images: QemuImages, chain: Chain, work: Path) -> bytes:
    with nbd.serve(images._sandbox, chain) as served:
        content = bytearray(served.size)
        for start in range(0, len(content), MIB):
            served.read_into(memoryview(content)[start : start + MIB], start)
    return bytes(content)


def over_it(images: QemuImages, chain: Chain, work: Path) -> bytes:
    """As the appliance has it: an overlay's header names what lies below."""
    overlay = images.create_overlay(chain, work / "overlay.qcow2")
    return by_qemu_img(images, overlay, work)


READERS: dict[str, Callable[[QemuImages, Chain, Path], bytes]] = {
    "galleria": by_galleria,
    "qemu-img": by_qemu_img,
    "qemu-nbd": by_qemu_nbd,
    "an overlay": over_it,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("confined", [True, False], ids=["sandbox", "no sandbox"])
@pytest.mark.parametrize("kind", FORMATS)
def test_pinned_is_what_is_read(
    kind: str,
    reader: str,
    tmp_path: Path,
    require: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    *,
    confined: bool,
) -> None:
    require("qemu-img", "qemu-nbd", *(("bwrap",) if confined else ()))
    monkeypatch.setattr(calls, "clone", lambda *_: False)  # a clone is nobody else's
    source, work = tmp_path / "source", tmp_path / "work"
    work.mkdir()
    format = image(source / "disk", TRUE, kind)
    image(tmp_path / "impostor" / "disk", FALSE, kind)
    images = QemuImages(Sandbox(enabled=confined))
    chain = (Layer(source / "disk", format),)
    with FilePins().pin([chain], work) as pin:
        with swapped(source):
            found = READERS[reader](images, pin.chains[0], work)
        pin.verify()  # it can't tell: all is as it was
    assert found == TRUE
