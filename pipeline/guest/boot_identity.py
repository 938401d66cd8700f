"""The machine id outside of /etc/machine-id: in boot entries and kernel arguments.

PID 1 takes `systemd.machine_id=` when /etc/machine-id is empty, so that every clone would be the
old machine again. Boot entries and kernels are named by the id, too (kernel-install(8), the Boot
Loader Specification): they are named by the distribution instead. Where GRUB sorts entries by their
names (RHEL's), a clone names them by its own id at its first boot.
"""

import re
from pathlib import PurePosixPath

from pipeline.data.text import printable
from pipeline.errors import StageFailed
from pipeline.guest.accounts import change_lines
from pipeline.guest.operations import Context, Editor, Operation, lines_of

BOOTS = ("/boot", "/efi", "/boot/efi")
NAMED = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
ARGUMENT = re.compile(r"(?<![^\s\"'=])systemd\.machine_id=[0-9a-fA-F-]{32,36}[ \t]?")
OTHER_FILES = (
    *("/etc/kernel/cmdline", "/etc/default/grub", "/etc/sysconfig/grub", "/etc/zipl.conf"),
    *("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/boot/efi/EFI/*/grub.cfg"),
    *("/etc/cmdline.d/*.conf", "/etc/kernel/cmdline.d/*.conf", "/etc/default/grub.d/*.cfg"),
)
ENVIRONMENTS = ("/boot/grub/grubenv", "/boot/grub2/grubenv", "/boot/efi/EFI/*/grubenv")
ENVIRONMENT_LENGTH = 1024  # GRUB writes this file block by block: it must stay as long
TOKEN_FILE = "/etc/kernel/entry-token"  # noqa: S105 - kernel-install's
UNIFIED = re.compile(rb"systemd\.machine_id=[0-9a-fA-F-]{32}")
UNIFIED_LIMIT = 256 << 20
SYSTEMD = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
SCRIPT = "/etc/systemd/galleria-boot-entries.sh"
UNIT = "/etc/systemd/system/galleria-boot-entries.service"
WANTED = "/etc/systemd/system/multi-user.target.wants/galleria-boot-entries.service"
UNIT_TEXT = f"""\
# Written by galleria when this image was generalized: GRUB sorts boot entries by their names, which
# begin with the machine id.
[Unit]
Description=Name boot entries by this machine's id
RequiresMountsFor=/boot
ConditionPathIsReadWrite=/boot

[Service]
Type=oneshot
ExecStart=/bin/sh {SCRIPT}

[Install]
WantedBy=multi-user.target
"""
SCRIPT_TEXT = """\
#!/bin/sh
# Written by galleria when this image was generalized.
id=$(cat /etc/machine-id)
[ ${#id} = 32 ] || exit 1
for file in /boot/*-0-rescue-@ /boot/*-0-rescue-@.img; do
  [ ! -e "$file" ] || mv "$file" "${file%-0-rescue-@*}-0-rescue-$id${file##*-0-rescue-@}"
done
for entry in /boot/loader/entries/@-*.conf; do
  [ -e "$entry" ] || continue
  sed -i "s/0-rescue-@/0-rescue-$id/g" "$entry"
  mv "$entry" "/boot/loader/entries/$id-${entry#/boot/loader/entries/@-}"
done
for tool in grub2-editenv grub-editenv; do
  saved=$($tool - list 2>/dev/null | sed -n 's/^saved_entry=@-//p')
  [ -z "$saved" ] || $tool - set "saved_entry=$id-$saved"
done
rm -f @WANTED
"""


def reset_boot_identity(edit: Editor, _: Context) -> None:
    _refuse_unified(edit)
    tokens = _Tokens(edit)
    by_grub = False
    for boot in BOOTS:
        if not edit.is_directory(edit.follow(boot)):
            continue
        for path in edit.guest.glob(f"{boot}/loader/entries/*.conf"):
            by_grub |= _treat_entry(edit, path, tokens)
        change_lines(edit, f"{boot}/loader/loader.conf", tokens.within)  # "default <id>-*"
        # EFI/Linux: unified kernel images; kernels in directories by the id; rescue kernels
        for path in (*edit.guest.glob(f"{boot}/*"), *edit.guest.glob(f"{boot}/EFI/Linux/*.efi")):
            tokens.set_name(path)
    for pattern in ENVIRONMENTS:
        for path in edit.guest.glob(pattern):
            _treat_environment(edit, path, tokens)
    for pattern in OTHER_FILES:
        for path in edit.guest.glob(pattern):
            change_lines(edit, path, _without_argument)
    change_lines(
        edit,
        "/etc/machine-info",
        lambda line: None if line.startswith("KERNEL_INSTALL_MACHINE_ID=") else line,
    )
    if NAMED.fullmatch(edit.text(TOKEN_FILE).strip()) or (tokens.used and not by_grub):
        edit.write_text(TOKEN_FILE, f"{tokens.first}\n")
    if by_grub and any(edit.exists(path) for path in SYSTEMD):
        script = SCRIPT_TEXT.replace("@WANTED", WANTED).replace("@", tokens.first)
        edit.write_text(SCRIPT, script, mode=0o755)
        edit.write_text(UNIT, UNIT_TEXT)
        edit.symlink(UNIT, WANTED)


class _Tokens:
    """What names are given in place of which machine ids: the distribution's, numbered if there are
    several machines' ids."""

    def __init__(self, edit: Editor) -> None:
        self._edit = edit
        self.used: dict[str, str] = {}
        self.first = "linux"
        for line in lines_of(edit.text("/etc/os-release") or edit.text("/usr/lib/os-release")):
            key, _, value = line.partition("=")
            value = value.strip().strip("\"'")
            if key == "ID" and re.fullmatch(r"[a-z0-9._-]{1,32}", value):
                self.first = value
        own = edit.text("/etc/machine-id").strip()
        self._own = own if NAMED.fullmatch(own) else ""

    def of(self, machine_id: str) -> str:
        if machine_id not in self.used:
            others = sum(item != self._own for item in self.used)
            number = 2 if self._own else 1
            first = machine_id == self._own or (not self._own and not others)
            self.used[machine_id] = self.first if first else f"{self.first}-{others + number}"
        return self.used[machine_id]

    def within(self, text: str) -> str:
        return NAMED.sub(lambda match: self.of(match[0]), text)

    def set_name(self, path: str) -> None:
        name = PurePosixPath(path).name
        if (new := self.within(name)) != name:
            self._edit.set_name(path, new)


def _treat_entry(edit: Editor, path: str, tokens: _Tokens) -> bool:
    """Whether it is one of those that GRUB sorts by name: named by the id, its kernel not."""

    def change(line: str) -> str | None:
        key = (line.split() or [""])[0]
        if key == "machine-id":
            return None
        if key in ("linux", "initrd", "efi", "version", "title"):
            return tokens.within(line)
        return _without_argument(line)

    change_lines(edit, path, change)
    in_directory = any(map(_in_directory, lines_of(edit.text(path))))
    name = PurePosixPath(path).name
    tokens.set_name(path)
    return tokens.within(name) != name and not in_directory


def _in_directory(line: str) -> bool:
    """A kernel in a directory of its own, as kernel-install(8) lays them out."""
    words = line.split()
    return words[:1] == ["linux"] and len(words) > 1 and words[1].count("/") > 2


def _treat_environment(edit: Editor, path: str, tokens: _Tokens) -> None:
    text = edit.text(path)
    new = tokens.within(ARGUMENT.sub("", text.rstrip("#")))
    if new != text.rstrip("#") and len(new) <= ENVIRONMENT_LENGTH:
        edit.write_text(path, new.ljust(ENVIRONMENT_LENGTH, "#"))


def _without_argument(line: str) -> str:
    return ARGUMENT.sub("", line) if "systemd.machine_id=" in line else line


def _refuse_unified(edit: Editor) -> None:
    """A unified kernel image is signed as a whole: its arguments can't be edited."""
    for boot in BOOTS:
        for path in edit.guest.glob(f"{boot}/EFI/Linux/*.efi"):
            if edit.is_file(path) and UNIFIED.search(edit.guest.read(path, UNIFIED_LIMIT)):
                raise StageFailed(
                    f"{printable(path)} has systemd.machine_id= in it: every clone would take the "
                    "machine id that it names",
                    hint="build the unified kernel image without it (/etc/kernel/cmdline)",
                )


OPERATIONS = (
    Operation(
        "boot-identity",
        "Take the machine id out of kernel arguments and the names of boot entries",
        "A clone that starts with systemd.machine_id= of another machine takes its id; and GRUB "
        "sorts entries by the id in their names: after an upgrade an old kernel would boot.",
        reset_boot_identity,
        paths=(
            *(f"{boot}/loader/{name}.conf" for boot in BOOTS for name in ("loader", "entries/*")),
            *("/boot/EFI/Linux/*.efi", "/efi/EFI/Linux/*.efi", *OTHER_FILES, *ENVIRONMENTS),
            *(TOKEN_FILE, "/etc/machine-info"),
        ),
    ),
)
