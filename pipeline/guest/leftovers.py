"""What a Linux machine and its people leave behind: passwords, mail, jobs, caches, logs."""

import re

from pipeline.guest.accounts import humans, lock_passwords
from pipeline.guest.operations import Action, Context, Editor, Operation, Users
from pipeline.guest.services import removing

ROTATED = re.compile(r"(\.(gz|bz2|xz|zst|old)|\.\d+|-\d{8})$")
UNIT_DIRECTORIES = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
INSTALLER_ANSWERS = (
    "/root/anaconda-ks.cfg",
    "/root/original-ks.cfg",
    "/root/initial-setup-ks.cfg",
    "/root/install.log",
    "/root/install.log.syslog",
    "/root/autoinst.xml",
    "/root/inst-sys/*",
    "/root/ks-post.log",
    "/var/adm/autoinstall/**",
    "/var/log/installer/autoinstall-user-data",
    "/var/lib/cloud/seed/nocloud-net/*",
    "/autoinstall.yaml",
    "/cdrom/autoinstall.yaml",
)
CRASHES = (
    "/var/crash",
    "/var/lib/systemd/coredump",
    "/var/lib/apport/coredump",
    "/var/spool/abrt",
    "/var/log/dump",
)
# who logged in, from where, and failed to: databases that are made anew (lastlog2, wtmpdb)
LOGINS = ("/var/lib/lastlog", "/var/lib/wtmpdb", "/var/lib/faillock", "/var/lib/sudo/ts")
CACHES = (
    "/var/cache/dnf",
    "/var/cache/libdnf5",
    "/var/cache/yum",
    "/var/cache/zypp",
    "/var/cache/pacman/pkg",
    "/var/cache/apk",
)


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
    for path, found in edit.guest.find(edit.place("/var/log")):
        if found.kind == "file":
            if ROTATED.search(path):
                edit.remove(path)
            else:
                edit.truncate(path)
    edit.remove_all("/var/lib/rsyslog/imjournal.state", "/var/account/pacct*")
    edit.remove_contents(*LOGINS)


def remove_temporary(edit: Editor, _: Context) -> None:
    edit.remove_contents("/tmp", "/var/tmp")  # noqa: S108 - the guest's


def remove_crash_data(edit: Editor, _: Context) -> None:
    edit.remove_contents(*CRASHES)


def remove_package_caches(edit: Editor, _: Context) -> None:
    edit.remove_all(
        "/var/cache/apt/archives/*.deb", "/var/cache/apt/archives/partial/*", "/var/cache/apt/*.bin"
    )
    edit.remove_contents(*CACHES)


def empty_spools(edit: Editor, _: Context) -> None:
    for directory in ("/var/mail", "/var/spool/mail", "/var/spool/at", "/var/spool/cron/atjobs"):
        for path, found in edit.guest.find(edit.place(directory)):
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


def remove_first_boot_answers(edit: Editor, context: Context) -> None:
    removing(INSTALLER_ANSWERS)(edit, context)


def remove_snapshots(edit: Editor, _: Context) -> None:
    if found := edit.guest.snapshots():
        edit.guest.remove_snapshots()
        for path in found:
            edit.record(Action.REMOVED, path)


def reset_pacman_keyring(edit: Editor, _: Context) -> None:
    """pacman's own signing key; only where the guest makes a new one at its first boot."""
    if any(edit.exists(f"{d}/pacman-init.service") for d in UNIT_DIRECTORIES):
        edit.remove_contents("/etc/pacman.d/gnupg")


OPERATIONS = (
    Operation(
        "snapshots",
        "Delete btrfs snapshots of what is mounted (snapper, Timeshift)",
        "They keep what is removed from the file systems themselves.",
        remove_snapshots,
        paths=("@/.snapshots/*/snapshot", "timeshift-btrfs/snapshots"),
    ),
    Operation(
        "passwords",
        "Lock root and system accounts; leave no empty password",
        "A password that everybody who has the image knows is none.",
        lock_root,
        paths=("/etc/shadow", "/etc/gshadow", "/etc/passwd"),
    ),
    Operation(
        "password-backups",
        "Remove backups of the account files and remembered passwords",
        "They hold the hashes of accounts that were removed or locked.",
        remove_password_backups,
        paths=(
            "/etc/{passwd,shadow,group,gshadow,subuid,subgid}{-,~,.org,.bak}",
            "/var/backups",
            "/etc/security/opasswd",
            "/var/cache/debconf/passwords.dat",
        ),
    ),
    Operation(
        "spools",
        "Remove mail, print jobs and one-time jobs that wait in spools",
        "They belong to the old machine's users, and would be sent by every clone.",
        empty_spools,
        paths=("/var/mail", "/var/spool/{mail,at,cron/atjobs,postfix,exim4,cups,mqueue}"),
    ),
    Operation(
        "crontabs",
        "Remove every crontab in the spool, root's too",
        "Jobs that users had; those of removed users go with them in any case.",
        remove_crontabs,
        default=False,
        paths=("/var/spool/cron",),
    ),
    Operation(
        "crash-data",
        "Remove core dumps and crash reports",
        "They are memory of processes, secrets included.",
        remove_crash_data,
        paths=CRASHES,
    ),
    Operation(
        "package-caches",
        "Remove downloaded packages",
        "They only take space; package lists are kept.",
        remove_package_caches,
        paths=("/var/cache/apt/archives", *CACHES),
    ),
    Operation(
        "installer-answers",
        "Remove what installers keep of their answers",
        "They hold the first user's password, and keys.",
        remove_first_boot_answers,
        paths=INSTALLER_ANSWERS,
    ),
    Operation(
        "pacman-keyring",
        "Let pacman make a new signing key at the first boot, where it would",
        "Who has the key of another machine can sign packages for it.",
        reset_pacman_keyring,
        families=("arch",),
        paths=("/etc/pacman.d/gnupg",),
    ),
    Operation(
        "temporary-files",
        "Remove what is in /tmp and /var/tmp",
        "Nothing there outlives a machine, and anything may lie there.",
        remove_temporary,
        paths=("/tmp", "/var/tmp"),  # noqa: S108 - the guest's
    ),
    Operation(
        "boot-flags",
        "Remove /forcefsck, /fastboot and /.autorelabel",
        "Left behind, they make each clone check or relabel its disk and start again.",
        remove_boot_flags,
        paths=("/forcefsck", "/fastboot", "/.autorelabel"),
    ),
    Operation(
        "logs",
        "Empty logs in place; remove rotated logs and journals",
        "They tell of the old machine, and often hold secrets.",
        empty_logs,
        paths=("/var/log", "/var/account/pacct*", "/var/lib/rsyslog/imjournal.state", *LOGINS),
    ),
)
