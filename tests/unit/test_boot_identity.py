"""The machine id in kernel arguments and names of boot entries."""

import pytest

from pipeline.errors import StageFailed
from pipeline.guest.operations import Action
from tests.contract.memory_guest import MemoryGuest
from tests.unit.test_evidence import tree
from tests.unit.test_generalize import run, text

OLD = "4f1d2c3b4a5968778695a4b3c2d1e0f9"


def guest_of(distribution: str) -> MemoryGuest:
    made = MemoryGuest()
    made.plant("/etc/os-release", f'ID="{distribution}"\n')
    made.plant("/etc/machine-id", f"{OLD}\n")
    made.plant("/usr/lib/systemd/systemd", "ELF")
    return made


def test_entries_of_systemd_boot_lose_the_id_and_keep_their_kernel() -> None:
    guest = guest_of("arch")
    guest.plant(
        f"/boot/loader/entries/{OLD}-6.9.0.conf",
        f"title Arch\nmachine-id {OLD}\noptions root=LABEL=r systemd.machine_id={OLD} rw\n"
        f"linux /{OLD}/6.9.0/linux\n",
    )
    guest.plant("/boot/loader/loader.conf", f"timeout 3\ndefault {OLD}-*\n")
    guest.plant(f"/boot/{OLD}/6.9.0/linux", "kernel")
    guest.plant("/etc/kernel/cmdline", f"systemd.machine_id={OLD} quiet\n")
    guest.plant("/etc/default/grub", f'GRUB_CMDLINE_LINUX="systemd.machine_id={OLD}"\n')
    guest.plant("/etc/kernel/entry-token", f"{OLD}\n")
    guest.plant("/etc/machine-info", f"PRETTY_HOSTNAME=x\nKERNEL_INSTALL_MACHINE_ID={OLD}\n")
    changes = run(guest, "boot-identity", "machine-id")
    assert text(guest, "/boot/loader/entries/arch-6.9.0.conf") == (
        "title Arch\noptions root=LABEL=r rw\nlinux /arch/6.9.0/linux\n"
    )
    assert text(guest, "/boot/loader/loader.conf") == "timeout 3\ndefault arch-*\n"
    assert text(guest, "/boot/arch/6.9.0/linux") == "kernel"
    assert text(guest, "/etc/kernel/cmdline") == "quiet\n"
    assert text(guest, "/etc/default/grub") == 'GRUB_CMDLINE_LINUX=""\n'
    assert text(guest, "/etc/kernel/entry-token") == "arch\n"
    assert text(guest, "/etc/machine-info") == "PRETTY_HOSTNAME=x\n"
    assert (Action.RENAMED, f"/boot/{OLD}") in changes
    assert guest.stat("/etc/systemd/system/galleria-boot-entries.service") is None
    assert not [path for path, held in tree(guest.root).items() if OLD in f"{path}{held[1]!r}"]


def test_entries_that_grub_sorts_are_named_anew_by_the_clone() -> None:
    guest = guest_of("rocky")
    for version in ("5.14.0", "0-rescue"):
        rescue = f"-{OLD}" if version == "0-rescue" else ""
        guest.plant(
            f"/boot/loader/entries/{OLD}-{version}.conf", f"linux /vmlinuz-{version}{rescue}\n"
        )
        guest.plant(f"/boot/vmlinuz-{version}{rescue}", "k")
    head = f"# GRUB Environment Block\nsaved_entry={OLD}-5.14.0\nboot_success=0\n"
    guest.plant("/boot/grub2/grubenv", head.ljust(1024, "#"))
    run(guest, "boot-identity", "machine-id")
    assert guest.names("/boot/loader/entries") == ["rocky-0-rescue.conf", "rocky-5.14.0.conf"]
    assert guest.names("/boot") == [
        *("grub2", "loader", "vmlinuz-0-rescue-rocky", "vmlinuz-5.14.0"),
    ]
    rescue = text(guest, "/boot/loader/entries/rocky-0-rescue.conf")
    assert rescue == "linux /vmlinuz-0-rescue-rocky\n"
    environment = text(guest, "/boot/grub2/grubenv")
    assert len(environment) == 1024
    assert "\nsaved_entry=rocky-5.14.0\nboot_success=0\n#" in environment
    script = text(guest, "/etc/systemd/galleria-boot-entries.sh")
    assert "/boot/loader/entries/rocky-*.conf" in script
    assert "@" not in script
    wants = "/etc/systemd/system/multi-user.target.wants/galleria-boot-entries.service"
    assert guest.readlink(wants) == "/etc/systemd/system/galleria-boot-entries.service"
    assert not [path for path, held in tree(guest.root).items() if OLD in f"{path}{held[1]!r}"]


def test_ids_of_two_machines_get_names_of_their_own() -> None:
    guest = guest_of("fedora")
    for machine in (OLD, "0" * 32):
        guest.plant(f"/boot/loader/entries/{machine}-6.conf", "linux /vmlinuz-6\n")
    run(guest, "boot-identity")
    assert guest.names("/boot/loader/entries") == ["fedora-2-6.conf", "fedora-6.conf"]


def test_a_signed_kernel_image_with_the_id_in_it_is_refused() -> None:
    guest = guest_of("arch")
    guest.plant(f"/efi/EFI/Linux/{OLD}-6.efi", b"MZ quiet\0")
    run(guest, "boot-identity")
    assert guest.names("/efi/EFI/Linux") == ["arch-6.efi"]
    guest.plant("/efi/EFI/Linux/arch-6.efi", f"MZ systemd.machine_id={OLD} quiet\0")
    with pytest.raises(StageFailed, match="every clone would take the machine id"):
        run(guest, "boot-identity")
