"""ssh host keys: removed together with a guarantee that the first boot makes new ones.

systemd's units get a drop-in; System V and busybox's init a script or line of ours. What other
start-up systems run for sshd (OpenRC, runit, s6, dinit, BSD-like rc) nearly always makes missing
keys itself: where it is seen to, that is guarantee enough. Anything else is refused, as a machine
that nobody can log in to is worse than a run that failed.
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from pipeline.data.text import printable
from pipeline.errors import StageFailed
from pipeline.guest import units
from pipeline.guest.accounts import change_lines
from pipeline.guest.operations import Context, Editor, Operation, lines_of

KEYGEN = "/usr/bin/ssh-keygen"
UNIT_DIRECTORIES = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
UNITS = ("ssh", "sshd", "ssh@", "sshd@")
INIT_SCRIPTS = ("/etc/init.d/sshd", "/etc/init.d/ssh")
# of Slackware and BSD-like ones; Buildroot; runit (Void); s6; dinit
STARTERS = (
    "/etc/rc.d/rc.sshd",
    "/etc/rc.d/sshd",
    "/etc/init.d/S*sshd",
    "/etc/sv/*/run",
    "/etc/runit/sv/*/run",
    "/etc/service/*/run",
    "/etc/s6/sv/*/run",
    "/etc/s6-rc/*/*/run",
    "/etc/dinit.d/*",
)
INITTAB, BUSYBOX = "/etc/inittab", "::sysinit:"
DROP_IN = "50-galleria-host-keys.conf"
HEADER = """\
# Written by galleria when this image was generalized: its host keys were removed, and sshd does not
# start without any. ssh-keygen -A makes the missing ones and leaves those that are there.
[Service]
ExecStartPre=
ExecStartPre=/usr/bin/ssh-keygen -A
"""
RUNLEVELS = tuple(f"/etc/rc{number}.d" for number in range(2, 6))
INIT_SCRIPT, INIT_LINK = "/etc/init.d/galleria-host-keys", "S00galleria-host-keys"
INIT_ORDER = "/etc/init.d/.depend.start"
INIT_TEXT = """\
#!/bin/sh
### BEGIN INIT INFO
# Provides:          galleria-host-keys
# Required-Start:    $local_fs
# Required-Stop:
# X-Start-Before:    ssh sshd
# Default-Start:     2 3 4 5
# Default-Stop:
# Short-Description: Make missing ssh host keys
### END INIT INFO
# Written by galleria when this image was generalized: its host keys were removed.
[ "$1" = start ] || exit 0
/usr/bin/ssh-keygen -A
"""


DROPBEAR = "/usr/sbin/dropbear"
DROPBEAR_KEYS = "/etc/dropbear/dropbear_*_host_key"
DROPBEAR_STARTERS = (
    *("/etc/init.d/dropbear", "/etc/conf.d/dropbear", "/etc/default/dropbear"),
    *("/etc/init.d/S50dropbear", "/etc/sv/dropbear/run"),
)
DROPBEAR_MAKES = re.compile(r"(^|[\s\"'])-[A-Za-z]*R\b", re.MULTILINE)
DROPBEAR_TEXT = """\
# Written by galleria when this image was generalized: its host keys were removed.
[Service]
ExecStartPre=/bin/sh -c 'for t in rsa ecdsa ed25519; do \
k=/etc/dropbear/dropbear_$${t}_host_key; [ -e $$k ] || dropbearkey -t $$t -f $$k; done'
"""


SETTINGS = ("/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d/*.conf")
STANDARD = re.compile(r"/etc/ssh/ssh_host_(rsa|dsa|ecdsa|ed25519)_key")
PLAIN = re.compile(r"/[\w./+-]+")  # a path that needs no quotes, in a unit or in a shell
KEY = re.compile(r"\s*(-----BEGIN [A-Z ]*PRIVATE KEY-----|ssh-|ecdsa-|sk-)")
TYPES = ("ed25519", "ecdsa", "rsa")


def remove_host_keys(edit: Editor, _: Context) -> None:
    elsewhere = _named_keys(edit)
    if edit.is_file(edit.follow("/usr/sbin/sshd")):
        written = (*map(_drop_in, UNITS), INIT_SCRIPT)  # by an earlier run
        made = " ".join(map(edit.text, written)).split()
        _guarantee_new_keys(edit, [key for key in elsewhere if edit.exists(key) or key in made])
    if edit.is_file(edit.follow(DROPBEAR)) and edit.guest.glob(DROPBEAR_KEYS):
        _guarantee_dropbear_keys(edit)
    named = [f"{key}{end}" for key in elsewhere for end in ("", ".pub", "-cert.pub")]
    paths = [
        path for glob in ("/etc/ssh/ssh_host_*", DROPBEAR_KEYS) for path in edit.guest.glob(glob)
    ]
    for path in (*paths, *named):
        target = edit.follow(path)
        if target != edit.guest.real(path) and KEY.match(edit.text(target)):
            edit.remove(target)  # the key behind a link
        edit.remove(path)


def _named_keys(edit: Editor) -> list[str]:
    """Keys that sshd_config(5) names besides the usual ones; a key of an agent has no file."""
    found = []
    for pattern in SETTINGS:
        for path in edit.guest.glob(pattern):
            for line in lines_of(edit.text(path)):
                words = line.replace("=", " ").replace('"', " ").split()
                if len(words) >= 2 and words[0].lower() in ("hostkey", "hostcertificate"):
                    found.append(words[1])
    return [
        path
        for path in dict.fromkeys(found)
        if path.startswith("/") and ".." not in path.split("/") and not STANDARD.fullmatch(path)
    ]


def _drop_in(unit: str) -> str:
    return f"/etc/systemd/system/{unit}.service.d/{DROP_IN}"


def _making(keys: Sequence[str]) -> list[str]:
    """Commands of a shell that make the keys that sshd_config(5) names."""
    commands = []
    for key in keys:
        if not PLAIN.fullmatch(key):
            raise StageFailed(
                f"sshd_config names the host key {printable(key)}, which nothing can name safely",
                hint="leave the keys with --skip ssh-host-keys",
            )
        if key.endswith(".pub"):
            continue  # a certificate: of the old key
        kind = next((name for name in TYPES if name in key), TYPES[0])
        directory = PurePosixPath(key).parent
        commands.append(
            f"[ -e {key} ] || {{ mkdir -p {directory}; "
            f'/usr/bin/ssh-keygen -q -t {kind} -N "" -f {key}; }}'
        )
    return commands


def _guarantee_dropbear_keys(edit: Editor) -> None:
    """`dropbear -R` makes keys when they are asked for; Debian makes them with the package."""
    unit = _unit(edit, "dropbear") if units.runs_systemd(edit) else ""
    texts = [unit, *(edit.text(path) for path in DROPBEAR_STARTERS)]
    if any("dropbearkey" in text or DROPBEAR_MAKES.search(text) for text in texts):
        return
    if not unit:
        raise StageFailed(
            "the guest has dropbear, but nothing that would make new host keys at its first start",
            hint="leave the keys with --skip ssh-host-keys, or start dropbear with -R",
        )
    edit.write_text(f"/etc/systemd/system/dropbear.service.d/{DROP_IN}", DROPBEAR_TEXT)


def _guarantee_new_keys(edit: Editor, named: Sequence[str]) -> None:
    """A drop-in for every unit that starts sshd, ahead of the unit's own checks: Debian's
    `sshd -t` fails without keys, so cloud-init or nothing would have to come first. `named`: keys
    that ssh-keygen -A does not make."""
    guaranteed = False
    own = _making(named)
    for unit in UNITS:
        text = _unit(edit, unit)
        if not text:
            continue
        guaranteed = units.runs_systemd(edit)
        # Fedora, RHEL: the unit wants a target that makes keys
        if own or "sshd-keygen" not in text:
            checks = [line for line in text.splitlines() if line.startswith("ExecStartPre=")]
            checks = [line for line in checks if "ssh-keygen" not in line]
            lines = [*(f"ExecStartPre=/bin/sh -c '{command}'" for command in own), *checks]
            edit.write_text(_drop_in(unit), HEADER + "".join(f"{line}\n" for line in lines))
    guaranteed = guaranteed or (not own and _starts_with_keys(edit)) or _add_init_script(edit, own)
    if own and not guaranteed:
        raise StageFailed(
            f"sshd_config names host keys of its own ({printable(', '.join(named))}), which "
            "nothing would make again",
            hint="leave the keys with --skip ssh-host-keys",
        )
    if not guaranteed and not _add_to_inittab(edit):
        raise StageFailed(
            "the guest has sshd, but nothing that would make new host keys at its first start",
            hint="leave the keys with --skip ssh-host-keys, or let the guest's start-up run "
            "ssh-keygen -A",
        )
    if not edit.is_file(edit.follow(KEYGEN)):
        raise StageFailed(
            f"the guest has sshd but not {KEYGEN}, so new host keys cannot be made",
            hint="leave the keys with --skip ssh-host-keys",
        )


def _starts_with_keys(edit: Editor) -> bool:
    """Whether what starts sshd makes missing keys by itself."""
    paths = [*INIT_SCRIPTS, *(path for glob in STARTERS for path in edit.guest.glob(glob))]
    return any("ssh-keygen" in edit.text(path) for path in paths)


def _add_init_script(edit: Editor, own: Sequence[str]) -> bool:
    """System V: a script of our own that runs before sshd's in every runlevel that starts that."""
    if not any(edit.text(path) for path in INIT_SCRIPTS):
        return False
    levels = [
        level for level in RUNLEVELS if any("ssh" in name for name in edit.guest.names(level))
    ]
    if levels:
        text = INIT_TEXT + "".join(f"{command}\n" for command in own)
        edit.write_text(INIT_SCRIPT, text, mode=0o755)
        for level in levels:
            edit.symlink(f"../init.d/{PurePosixPath(INIT_SCRIPT).name}", f"{level}/{INIT_LINK}")
        change_lines(edit, INIT_ORDER, _ordered)
    return bool(levels)


def _ordered(line: str) -> str:
    """As insserv(8) would write it: startpar(8) starts what this file names, and nothing else."""
    own = PurePosixPath(INIT_SCRIPT).name
    key, mark, rest = line.partition(":")
    if line.startswith("TARGETS = ") and own not in line.split():
        return line.replace("TARGETS =", f"TARGETS = {own}", 1)
    if mark and key in ("ssh", "sshd") and own not in rest.split():
        return f"{key}: {own}{rest}"
    return line


def _add_to_inittab(edit: Editor) -> bool:
    """busybox's init: its sysinit lines run in their order, each to its end, before all others."""
    lines = lines_of(edit.whole_text(INITTAB))
    ours = f"{BUSYBOX}{KEYGEN} -A"
    if ours in lines:
        return True
    starts = [number for number, line in enumerate(lines) if line.startswith(BUSYBOX)]
    if not starts:
        return False
    lines.insert(starts[-1], ours)  # the last one often starts the services
    edit.write_text(INITTAB, "".join(f"{line}\n" for line in lines))
    return True


def _unit(edit: Editor, name: str) -> str:
    for directory in UNIT_DIRECTORIES:
        path = f"{directory}/{name}.service"
        found = edit.guest.stat(path)
        if found is None:
            continue
        # Debian's sshd.service in /etc is an alias: a link to ssh.service, which has its own turn
        return edit.text(path) if found.kind == "file" else ""
    return ""


OPERATIONS = (
    Operation(
        "ssh-host-keys",
        "Remove ssh host keys, wherever they are; new ones are made at the first boot",
        "Machines with the same host key can impersonate each other.",
        remove_host_keys,
        paths=("/etc/ssh/ssh_host_*", DROPBEAR_KEYS, *SETTINGS),
    ),
)
