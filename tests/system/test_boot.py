"""The fixture guests boot by their own boot loaders, as a hypervisor would boot them: what a test
sees of a published image is then the image's doing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.process import command
from adapters.vms.seed import seed
from fixtures import boot, canaries, debian, disk
from fixtures.assemble import OS_SIZE
from pipeline.model import OsProfile
from tests.conftest import missing
from tests.system.test_generalize import treated

pytestmark = [pytest.mark.system, pytest.mark.slow]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGd1ZXN0IGtleSBvZiBhIGJvb3QgdGVzdCBvbmx5ISEh boot"

FIRMWARE = (
    Path("/usr/share/OVMF/OVMF_CODE.fd"),
    Path("/usr/share/OVMF/OVMF_CODE_4M.fd"),
    Path("/usr/share/edk2/ovmf/OVMF_CODE.fd"),
)


def uefi() -> Path:
    firmware = next((path for path in FIRMWARE if path.exists()), None)
    if firmware is None:
        missing("OVMF is not installed")
    return firmware


def overlay(base: Path, path: Path) -> tuple[Path, str]:
    backing = ["-F", "raw", "-b", str(base)]
    command.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(path)])
    return path, "qcow2"


def without_flags(guest: debian.Guest, work: Path) -> tuple[tuple[Path, str], ...]:
    """Disks over the guest's: /forcefsck, as a real machine may have it, would reboot it."""
    changed = work / "os.raw"
    debian.change_a_little(guest.os_disk, changed, guest.generation)
    offset = disk.Layout(guest.generation, OS_SIZE).root_offset
    disk.edit(changed, offset, ["rm /forcefsck"])
    return ((changed, "raw"), overlay(guest.data_disk, work / "data.qcow2"))


@pytest.mark.timeout(1800)
def test_by_bios_and_by_uefi(
    guest: debian.Guest, guest_v2: debian.Guest, require: Callable[..., None], tmp_path: Path
) -> None:
    require("qemu-system-x86_64", "qemu-img")
    firmware = uefi()
    machines = []
    for found, code in ((guest, None), (guest_v2, firmware)):
        work = tmp_path / found.generation
        work.mkdir()
        machines.append(
            boot.Machine(
                found.generation,
                without_flags(found, work),
                work / "console.log",
                firmware=code,
            )
        )
    for identity in boot.boot(machines, timeout=600):
        assert identity.machine_id == canaries.MACHINE_ID.value
        assert identity.hostname == canaries.value("hostname")
        assert identity.ssh == "active"
        assert identity.data == "data disk of the fixture guest"


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("cloud_init", [True, False], ids=["with", "without"])
@pytest.mark.parametrize("generation", ["V1", "V2"])
def test_clones_boot_by_their_own_loaders_and_stay_who_they_are(
    generation: str, cloud_init: bool, require: Callable[..., None], tmp_path: Path
) -> None:
    """Of guests made with and without cloud-init, by BIOS and by UEFI: two clones, booted twice."""
    require("qemu-system-x86_64", "qemu-img", "mmdebstrap")
    firmware = uefi() if generation == "V2" else None
    guest = debian.build(generation, without=() if cloud_init else ("cloud-init",))
    image = treated(guest, tmp_path)
    machines = []
    for name in ("one", "two"):
        disks = [
            overlay(image.os_disk, tmp_path / f"{name}-os.qcow2"),
            overlay(image.data_disk, tmp_path / f"{name}-data.qcow2"),
        ]
        if cloud_init:
            path = tmp_path / f"{name}.iso"
            profile = OsProfile(f"{name}-host", f"{name}-admin", (KEY,), "")
            path.write_bytes(seed(profile, f"instance-{name}"))
            disks.append((path, "raw"))
        console = tmp_path / f"{name}.log"
        machines.append(boot.Machine(name, tuple(disks), console, firmware=firmware))
    first = boot.boot(machines, timeout=900)
    for machine, identity in zip(machines, first, strict=True):
        assert identity.ssh == "active"
        assert len(identity.host_keys) >= 3
        assert identity.hostname == (f"{machine.name}-host" if cloud_init else "localhost")
        assert identity.users == ((f"{machine.name}-admin",) if cloud_init else ())
    one, two = first
    assert len({one.machine_id, two.machine_id, canaries.MACHINE_ID.value}) == 3
    assert not one.host_keys & two.host_keys
    again = boot.boot(machines, timeout=900)
    for before, after in zip(first, again, strict=True):
        # not what else may be slow on a busy host: the data disk's check, a unit
        assert _who(before) == _who(after)


def _who(identity: boot.Identity) -> boot.Identity:
    return replace(identity, seconds=0, failed=(), data="")
