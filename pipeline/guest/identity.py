"""What makes one Linux machine that machine: its ids, seeds, names and certificate."""

import re

from pipeline.guest import boot_identity, units
from pipeline.guest.operations import Context, Editor, Operation, lines_of

MACHINE_ID = re.compile(r"[0-9A-Fa-f-]*\s*|uninitialized\s*")
INITIATOR = re.compile(r"(?s).*(InitiatorName|GenerateName)=.*")
SYSTEMD = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
SEEDS = (
    "/var/lib/systemd/random-seed",
    "/var/lib/urandom/random-seed",
    "/var/lib/random-seed",
    "/var/lib/misc/random-seed",
    "/var/lib/seedrng/seed.*",
    "/boot/loader/random-seed",
    "/boot/efi/loader/random-seed",
    "/efi/loader/random-seed",
)
SNAKEOIL_KEY = "/etc/ssl/private/ssl-cert-snakeoil.key"
SNAKEOIL_CERTIFICATE = "/etc/ssl/certs/ssl-cert-snakeoil.pem"
SNAKEOIL_UNIT = "galleria-snakeoil.service"
SNAKEOIL_SERVICE = f"""\
# Written by galleria when this image was generalized: every machine makes its own certificate.
[Unit]
Description=Make a new self-signed snakeoil certificate
ConditionPathExists=!{SNAKEOIL_KEY}
Before=apache2.service nginx.service postgresql.service postfix.service exim4.service
Before=dovecot.service

[Service]
Type=oneshot
ExecStart=/usr/sbin/make-ssl-cert generate-default-snakeoil

[Install]
WantedBy=multi-user.target
"""


def clear_machine_id(edit: Editor, context: Context) -> None:
    """Empty, not absent and not "uninitialized": systemd's advice for images (machine-id(5)); an
    older systemd takes "uninitialized" for an id. D-Bus's copy goes: systemd would take the old id
    back from it."""
    edit.remove("/etc/hostid")  # gethostid(3), ZFS
    if context.facts.var_partition:
        _name_var(edit, context.facts.var_partition)
    real = edit.follow("/etc/machine-id")
    if edit.is_file(real) and not MACHINE_ID.fullmatch(edit.text(real)):
        edit.write_value("/etc/machine-id", "", MACHINE_ID)  # a link to something else
    elif edit.is_file(real):
        edit.truncate(real)
    elif any(edit.exists(path) for path in SYSTEMD) and not edit.exists(real):
        edit.write_text("/etc/machine-id", "", mode=0o444)
    copy = edit.guest.stat("/var/lib/dbus/machine-id")
    if copy is not None and copy.kind == "file":
        edit.remove("/var/lib/dbus/machine-id")
        return
    target = edit.follow("/var/lib/dbus/machine-id")
    if target != real and edit.is_file(target) and MACHINE_ID.fullmatch(edit.text(target)):
        edit.truncate(target)


def _name_var(edit: Editor, partition: str) -> None:
    """systemd finds /var by a UUID that follows from the machine id: a clone would not."""
    text = edit.whole_text("/etc/fstab")
    if not any(line.split()[1:2] == ["/var"] for line in lines_of(text)):
        ended = text if text.endswith("\n") or not text else f"{text}\n"
        edit.write_text("/etc/fstab", f"{ended}PARTUUID={partition} /var auto defaults 0 2\n")


def remove_seeds(edit: Editor, _: Context) -> None:
    edit.remove_all(*SEEDS)
    # the key of credentials that systemd encrypted for this machine; without any it is made anew
    if not edit.guest.names("/etc/credstore.encrypted"):
        edit.remove("/var/lib/systemd/credential.secret")


def reset_storage_names(edit: Editor, _: Context) -> None:
    path = "/etc/iscsi/initiatorname.iscsi"
    if edit.is_file(path):
        if edit.exists("/var/lib/dpkg"):  # Debian's start-up makes one where the file says so
            edit.write_value(path, "GenerateName=yes\n", INITIATOR)
        else:  # iscsi-init.service makes one where the file is absent
            edit.remove(path)
    edit.remove_all("/etc/nvme/hostnqn", "/etc/nvme/hostid", "/etc/lvm/devices/system.devices")
    edit.remove_contents("/etc/lvm/archive")
    edit.remove_all("/etc/blkid.tab", "/etc/blkid.tab.old", "/var/cache/blkid/blkid.tab")


def remove_snakeoil(edit: Editor, _: Context) -> None:
    """Services name this certificate, so it only goes where the guest can make a new one."""
    if not edit.exists(SNAKEOIL_KEY) or not edit.exists("/usr/sbin/make-ssl-cert"):
        return
    if not any(edit.exists(path) for path in SYSTEMD) or not units.runs_systemd(edit):
        return
    unit = f"/etc/systemd/system/{SNAKEOIL_UNIT}"
    edit.write_text(unit, SNAKEOIL_SERVICE)
    edit.symlink(unit, f"/etc/systemd/system/multi-user.target.wants/{SNAKEOIL_UNIT}")
    edit.remove_all(SNAKEOIL_KEY, SNAKEOIL_CERTIFICATE)


OPERATIONS = (
    *boot_identity.OPERATIONS,  # knows the old id from /etc/machine-id
    Operation(
        "machine-id",
        "Empty the machine id, and remove D-Bus's copy",
        "Clones with one id share DHCP addresses, journals and every id derived from it.",
        clear_machine_id,
        paths=("/etc/machine-id", "/var/lib/dbus/machine-id", "/etc/hostid", "/etc/fstab"),
    ),
    Operation(
        "random-seed",
        "Remove random seeds and the key of systemd's credentials",
        "Clones that start from one seed may draw the same random numbers.",
        remove_seeds,
        paths=(*SEEDS, "/var/lib/systemd/credential.secret"),
    ),
    Operation(
        "storage-names",
        "Reset the iSCSI initiator and NVMe host names, and lists of known devices",
        "Two hosts with one name break each other's sessions and reservations.",
        reset_storage_names,
        paths=(
            "/etc/iscsi/initiatorname.iscsi",
            "/etc/nvme/host*",
            "/etc/lvm/devices/system.devices",
            "/etc/lvm/archive/*",
            "/etc/blkid.tab",
        ),
    ),
    Operation(
        "snakeoil",
        "Replace Debian's self-signed certificate at the first boot",
        "Its private key would be the same on every clone.",
        remove_snakeoil,
        families=("debian",),
        paths=(SNAKEOIL_KEY, SNAKEOIL_CERTIFICATE),
    ),
)
