"""The fixture guests boot by their own boot loaders, as a hypervisor would boot them: what a test
sees of a published image is then the image's doing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from adapters import command
from fixtures import boot, canaries, debian, disk
from fixtures.assemble import OS_SIZE
from tests.conftest import missing

pytestmark = [pytest.mark.system, pytest.mark.slow]

FIRMWARE = (
    Path("/usr/share/OVMF/OVMF_CODE.fd"),
    Path("/usr/share/OVMF/OVMF_CODE_4M.fd"),
    Path("/usr/share/edk2/ovmf/OVMF_CODE.fd"),
)


def without_flags(guest: debian.Guest, work: Path) -> tuple[tuple[Path, str], ...]:
    """Disks over the guest's: /forcefsck, as a real machine may have it, would reboot it."""
    changed = work / "os.raw"
    debian.change_a_little(guest.os_disk, changed, guest.generation)
    offset = disk.Layout(guest.generation, OS_SIZE).root_offset
    disk.edit(changed, offset, ["rm /forcefsck"])
    data = work / "data.qcow2"
    backing = ["-F", "raw", "-b", str(guest.data_disk)]
    command.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(data)])
    return ((changed, "raw"), (data, "qcow2"))


@pytest.mark.timeout(1800)
def test_by_bios_and_by_uefi(
    guest: debian.Guest, guest_v2: debian.Guest, require: Callable[..., None], tmp_path: Path
) -> None:
    require("qemu-system-x86_64", "qemu-img")
    firmware = next((path for path in FIRMWARE if path.exists()), None)
    if firmware is None:
        missing("OVMF is not installed")
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
