"""What makes one Linux machine that machine: its ids, passwords, seeds, logs and leftovers."""

import re

from pipeline.guest.accounts import humans, lock_passwords
from pipeline.guest.operations import Context, Editor, Operation, Users

ROTATED = re.compile(r"(\.(gz|bz2|xz|zst|old)|\.\d+|-\d{8})$")
SYSTEMD = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
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


def clear_machine_id(edit: Editor, _: Context) -> None:
    """Empty, not absent and not "uninitialized": systemd's advice for images (machine-id(5)); an
    older systemd takes "uninitialized" for an id. D-Bus's copy goes: systemd would take the old id
    back from it."""
    real = edit.follow("/etc/machine-id")
    if edit.is_file(real):
        edit.truncate(real)
    elif any(edit.exists(path) for path in SYSTEMD) and not edit.exists(real):
        edit.write_text("/etc/machine-id", "", mode=0o444)
    copy = edit.guest.stat("/var/lib/dbus/machine-id")
    if copy is not None and copy.kind == "file":
        edit.remove("/var/lib/dbus/machine-id")
    elif (target := edit.follow("/var/lib/dbus/machine-id")) != real and edit.is_file(target):
        edit.truncate(target)


def lock_root(edit: Editor, context: Context) -> None:
    policy = context.policy
    stay = {account.name for account in humans(edit)}
    if policy.users is Users.ALL:
        stay &= policy.keep_users
    lock_passwords(edit, may_keep=stay - policy.remove_users)


def remove_password_backups(edit: Editor, _: Context) -> None:
    for name in ("passwd", "shadow", "group", "gshadow", "subuid", "subgid"):
        edit.remove_all(f"/etc/{name}-", f"/etc/{name}~", f"/etc/{name}.org")
        edit.remove_all(f"/etc/{name}.bak", f"/var/backups/{name}*")
    edit.truncate("/etc/security/opasswd")
    # the installer's debconf answers hold the first user's password
    edit.truncate("/var/cache/debconf/passwords.dat")
    edit.remove("/var/cache/debconf/passwords.dat-old")


def empty_logs(edit: Editor, _: Context) -> None:
    """Files are emptied in place, since daemons fail without their directories, owners and modes;
    rotated files and journals, which nothing expects, are removed."""
    edit.remove_contents("/var/log/journal")
    for path, found in edit.guest.find(edit.follow("/var/log")):
        if found.kind == "file":
            if ROTATED.search(path):
                edit.remove(path)
            else:
                edit.truncate(path)
    edit.remove_all("/var/lib/rsyslog/imjournal.state", "/var/account/pacct*")


def remove_seeds(edit: Editor, _: Context) -> None:
    edit.remove_all(
        "/var/lib/systemd/random-seed",
        "/var/lib/urandom/random-seed",
        "/var/lib/random-seed",
        "/var/lib/misc/random-seed",
        "/boot/loader/random-seed",
        "/boot/efi/loader/random-seed",
        "/efi/loader/random-seed",
    )
    # the key of credentials that systemd encrypted for this machine; without any it is made anew
    if not edit.guest.names("/etc/credstore.encrypted"):
        edit.remove("/var/lib/systemd/credential.secret")


def remove_temporary(edit: Editor, _: Context) -> None:
    edit.remove_contents("/tmp", "/var/tmp")  # noqa: S108 - the guest's


def remove_crash_data(edit: Editor, _: Context) -> None:
    edit.remove_contents(
        "/var/crash",
        "/var/lib/systemd/coredump",
        "/var/lib/apport/coredump",
        "/var/spool/abrt",
        "/var/log/dump",
    )


def remove_package_caches(edit: Editor, _: Context) -> None:
    edit.remove_all(
        "/var/cache/apt/archives/*.deb", "/var/cache/apt/archives/partial/*", "/var/cache/apt/*.bin"
    )
    edit.remove_contents("/var/cache/dnf", "/var/cache/libdnf5", "/var/cache/yum")
    edit.remove_contents("/var/cache/zypp", "/var/cache/pacman/pkg", "/var/cache/apk")


def empty_spools(edit: Editor, _: Context) -> None:
    for directory in ("/var/mail", "/var/spool/mail", "/var/spool/at", "/var/spool/cron/atjobs"):
        for path, found in edit.guest.find(edit.follow(directory)):
            if found.kind == "file" and not path.endswith("/.SEQ"):
                edit.remove(path)
    for queue in ("active", "bounce", "corrupt", "defer", "deferred", "hold", "incoming"):
        edit.remove_files(f"/var/spool/postfix/{queue}")
    for queue in ("postfix/maildrop", "exim4/input", "exim4/msglog", "cups", "mqueue"):
        edit.remove_files(f"/var/spool/{queue}")


def remove_crontabs(edit: Editor, _: Context) -> None:
    for directory in ("/var/spool/cron/crontabs", "/var/spool/cron/tabs"):
        edit.remove_contents(directory)
    for path, found in edit.guest.find("/var/spool/cron"):
        if found.kind == "file" and path.count("/") == 4:
            edit.remove(path)


def remove_boot_flags(edit: Editor, _: Context) -> None:
    edit.remove_all("/forcefsck", "/fastboot", "/.autorelabel")


def reset_storage_names(edit: Editor, _: Context) -> None:
    path = "/etc/iscsi/initiatorname.iscsi"
    if edit.is_file(path):
        if edit.exists("/var/lib/dpkg"):  # Debian's start-up makes one where the file says so
            edit.write_text(path, "GenerateName=yes\n")
        else:  # iscsi-init.service makes one where the file is absent
            edit.remove(path)
    edit.remove_all("/etc/nvme/hostnqn", "/etc/nvme/hostid", "/etc/lvm/devices/system.devices")
    edit.remove_contents("/etc/lvm/archive")
    edit.remove_all("/etc/blkid.tab", "/etc/blkid.tab.old", "/var/cache/blkid/blkid.tab")


def remove_snakeoil(edit: Editor, _: Context) -> None:
    """Services name this certificate, so it only goes where the guest can make a new one."""
    if not edit.exists(SNAKEOIL_KEY) or not edit.exists("/usr/sbin/make-ssl-cert"):
        return
    if not any(edit.exists(path) for path in SYSTEMD):
        return
    unit = f"/etc/systemd/system/{SNAKEOIL_UNIT}"
    edit.write_text(unit, SNAKEOIL_SERVICE)
    edit.symlink(unit, f"/etc/systemd/system/multi-user.target.wants/{SNAKEOIL_UNIT}")
    edit.remove_all(SNAKEOIL_KEY, SNAKEOIL_CERTIFICATE)


def leave_domain(edit: Editor, _: Context) -> None:
    edit.remove_all("/etc/krb5.keytab", "/var/lib/samba/secrets.tdb")
    edit.remove_all("/var/lib/samba/private/*.tdb")
    for name in ("db", "mc", "secrets", "pubconf", "pipes/private"):
        edit.remove_files(f"/var/lib/sss/{name}")


def remove_subscriptions(edit: Editor, _: Context) -> None:
    edit.remove_all("/etc/pki/consumer/*.pem", "/etc/pki/entitlement/*.pem")
    edit.remove_all("/etc/sysconfig/rhn/systemid", "/etc/zypp/credentials.d/SCCcredentials")
    edit.remove_contents("/var/lib/ubuntu-advantage/private", "/var/lib/rhsm")


def reset_agents(edit: Editor, _: Context) -> None:
    edit.remove_all(
        "/etc/salt/minion_id",
        "/etc/salt/pki/minion/minion.p*",
        "/etc/chef/client.pem",
        "/etc/docker/key.json",
        "/var/lib/docker/engine-id",
        "/var/lib/tailscale/tailscaled.state",
        "/var/lib/zerotier-one/identity.*",
    )
    for directory in ("/etc/puppetlabs/puppet/ssl", "/var/lib/puppet/ssl", "/var/lib/bluetooth"):
        edit.remove_files(directory)


# In the order in which they run: who was provisioned is read before that state goes, homes are
# found by /etc/passwd before accounts go, and what editing itself leaves goes last.
IDENTITY = (
    Operation(
        "machine-id",
        "Empty the machine id, and remove D-Bus's copy",
        "Clones with one id share DHCP addresses, journals and every id derived from it.",
        clear_machine_id,
    ),
    Operation(
        "random-seed",
        "Remove random seeds and the key of systemd's credentials",
        "Clones that start from one seed may draw the same random numbers.",
        remove_seeds,
    ),
    Operation(
        "storage-names",
        "Reset the iSCSI initiator and NVMe host names, and lists of known devices",
        "Two hosts with one name break each other's sessions and reservations.",
        reset_storage_names,
    ),
    Operation(
        "snakeoil",
        "Replace Debian's self-signed certificate at the first boot",
        "Its private key would be the same on every clone.",
        remove_snakeoil,
    ),
    Operation(
        "domain",
        "Remove Kerberos, SSSD and Samba machine secrets",
        "They are the machine's membership in a domain.",
        leave_domain,
    ),
    Operation(
        "subscriptions",
        "Remove Red Hat, SUSE and Ubuntu subscription identities",
        "A clone would count, and be revoked, as the machine it was made from.",
        remove_subscriptions,
    ),
    Operation(
        "agents",
        "Remove the identities of management agents",
        "Salt, Puppet, Chef, Docker and VPN agents take clones for one machine.",
        reset_agents,
    ),
)
LEFTOVERS = (
    Operation(
        "passwords",
        "Lock root and system accounts; leave no empty password",
        "A password that everybody who has the image knows is none.",
        lock_root,
    ),
    Operation(
        "password-backups",
        "Remove backups of the account files and remembered passwords",
        "They hold the hashes of accounts that were removed or locked.",
        remove_password_backups,
    ),
    Operation(
        "spools",
        "Remove mail, print jobs and one-time jobs that wait in spools",
        "They belong to the old machine's users, and would be sent by every clone.",
        empty_spools,
    ),
    Operation(
        "crontabs",
        "Remove every crontab in the spool, root's too",
        "Jobs that users had; those of removed users go with them in any case.",
        remove_crontabs,
        default=False,
    ),
    Operation(
        "crash-data",
        "Remove core dumps and crash reports",
        "They are memory of processes, secrets included.",
        remove_crash_data,
    ),
    Operation(
        "package-caches",
        "Remove downloaded packages",
        "They only take space; package lists are kept.",
        remove_package_caches,
    ),
    Operation(
        "temporary-files",
        "Remove what is in /tmp and /var/tmp",
        "Nothing there outlives a machine, and anything may lie there.",
        remove_temporary,
    ),
    Operation(
        "boot-flags",
        "Remove /forcefsck, /fastboot and /.autorelabel",
        "Left behind, they make each clone check or relabel its disk and start again.",
        remove_boot_flags,
    ),
    Operation(
        "logs",
        "Empty logs in place; remove rotated logs and journals",
        "They tell of the old machine, and often hold secrets.",
        empty_logs,
    ),
)
