"""A fixed appliance is changed so that it boots faster: the kernel is unpacked, the initrd loads
less. That it boots is tried where it is built, and by every test with an appliance."""

import gzip
import stat
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.filesystem import modes
from adapters.guestfs import fixed
from adapters.guestfs.quick import HEADER, INIT, PAYLOAD, SETUP_SECTORS, unpacked, with_modules
from adapters.images import QemuImages
from adapters.process.sandbox import Sandbox
from pipeline.ports import ImageFormat, Layer

KERNEL = b"\x7fELF" + bytes(range(256)) * 64
MODULES = ("libata.ko", "ata_piix.ko", "virtio_ring.ko", "virtio.ko", "nd_pmem.ko", "sd_mod.ko.xz")


def image(packed: bytes, setup: int = 3) -> bytes:
    """A bzImage: its setup, then the payload 100 bytes into the rest."""
    head = bytearray((setup + 1) * 512)
    head[SETUP_SECTORS] = setup
    head[HEADER : HEADER + 4] = b"HdrS"
    struct.pack_into("<II", head, PAYLOAD, 100, len(packed) + 4)
    return bytes(head) + bytes(100) + packed + struct.pack("<I", len(KERNEL)) + b"more"


def test_a_packed_kernel_is_unpacked() -> None:
    assert unpacked(image(gzip.compress(KERNEL))) == KERNEL


@pytest.mark.parametrize(
    "kernel",
    [
        KERNEL,
        b"MZ" + bytes(2000),
        image(b"what is this" * 10),
        image(gzip.compress(b"no program")),
    ],
)
def test_what_is_not_understood_stays(kernel: bytes) -> None:
    assert unpacked(kernel) == kernel


def archive(directory: Path, names: tuple[str, ...], content: str) -> bytes:
    (directory / "init").write_bytes(b"\x7fELF" + bytes(5))
    (directory / "modules").write_text(content)
    listed = "".join(f"{name}\n" for name in names).encode()
    argv = ["cpio", "--quiet", "-o", "-H", "newc"]
    return subprocess.run(argv, input=listed, cwd=directory, check=True, capture_output=True).stdout


def test_an_initrd_loads_what_is_needed(tmp_path: Path, require: Callable[..., None]) -> None:
    require("cpio")
    text = "".join(f"{name}\n" for name in (*MODULES, "virtio_scsi.ko"))
    initrd = archive(tmp_path, ("init", "modules"), text)
    made = with_modules(initrd)
    assert made.startswith(initrd)
    # the kernel unpacks one archive after the other, the later over the earlier
    out = tmp_path / "out"
    out.mkdir()
    later = made[-(-len(initrd) // 4) * 4 :]
    subprocess.run(["cpio", "--quiet", "-id"], input=later, cwd=out, check=True)
    assert [path.name for path in out.iterdir()] == ["modules"]
    kept = (out / "modules").read_text().split()
    assert kept == ["virtio_ring.ko", "virtio.ko", "sd_mod.ko.xz", "virtio_scsi.ko"]


def test_an_initrd_without_that_list_stays(tmp_path: Path, require: Callable[..., None]) -> None:
    require("cpio")
    for initrd in (archive(tmp_path, ("init",), ""), gzip.compress(b"packed"), b""):
        assert with_modules(initrd) == initrd


def test_the_first_process_is_a_script_that_bash_takes() -> None:
    subprocess.run(["bash", "-n"], input=INIT.encode(), check=True)


def test_the_sandboxs_user_may_read_it_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libguestfs asks access(2), which the sandbox's capability does not help."""
    made = tmp_path / "appliance" / "0123456789abcdef"
    monkeypatch.setattr(fixed, "key", lambda: made.name)
    with modes.private():
        (made / fixed.QEMU).mkdir(parents=True)
        for name in fixed.FILES:
            (made / name).write_bytes(b"x")
        with fixed.appliance(tmp_path) as found:
            assert found == made
    assert stat.S_IMODE(made.stat().st_mode) == 0o755
    assert {stat.S_IMODE((made / name).stat().st_mode) for name in fixed.FILES} == {0o644}


def test_the_sandboxs_user_may_write_an_overlay(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    require("qemu-img", "bwrap")
    (tmp_path / "disk.raw").write_bytes(bytes(1 << 20))
    with modes.private():
        chain = (Layer(tmp_path / "disk.raw", ImageFormat.RAW),)
        top, _ = QemuImages(Sandbox()).create_overlay(chain, tmp_path / "overlay.qcow2")
    assert stat.S_IMODE(top.path.stat().st_mode) == 0o666
