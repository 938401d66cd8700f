"""The account files of a Linux guest: passwd(5), shadow(5), group(5), gshadow(5), subuid(5)."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.guest.operations import Action, Editor, lines_of

UID_MIN, UID_MAX = 1000, 60000  # login.defs(5) where it says nothing
NOBODY = ("nobody", "nfsnobody")


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    uid: int
    gid: int
    home: str


def accounts(edit: Editor) -> list[Account]:
    """Every local account, malformed lines left out."""
    found = []
    for line in lines_of(edit.whole_text("/etc/passwd")):
        fields = line.split(":")
        if len(fields) >= 7:
            uid, gid = _number(fields[2]), _number(fields[3])
            if uid is not None and gid is not None:
                found.append(Account(fields[0], uid, gid, fields[5]))
    return found


def _number(text: str) -> int | None:
    """A user's or group's id: 32 bits."""
    return int(text) if text.isdecimal() and len(text) <= 10 else None


def humans(edit: Editor) -> list[Account]:
    """Accounts of people: those that useradd(8) gives to them by login.defs."""
    limits = _limits(edit)
    return [
        account
        for account in accounts(edit)
        if limits["UID_MIN"] <= account.uid <= limits["UID_MAX"] and account.name not in NOBODY
    ]


def _limits(edit: Editor) -> dict[str, int]:
    limits = {"UID_MIN": UID_MIN, "UID_MAX": UID_MAX}
    for line in lines_of(edit.text("/etc/login.defs")):
        words = line.split()
        if len(words) >= 2 and words[0] in limits and (limit := _number(words[1])) is not None:
            limits[words[0]] = limit
    return limits


def add_account(edit: Editor, name: str) -> Account:
    """Add a person's account as useradd(8) does: the first free id, a group of its own, no
    password, and a home made like /etc/skel."""
    taken = {account.uid for account in accounts(edit)}
    taken |= {
        number
        for line in lines_of(edit.whole_text("/etc/group"))
        if (number := _number(line.split(":")[2] if line.count(":") >= 3 else "")) is not None
    }
    uid = next(number for number in range(_limits(edit)["UID_MIN"], UID_MAX) if number not in taken)
    home = f"/home/{name}"
    shell = "/bin/bash" if edit.exists("/bin/bash") else "/bin/sh"
    shadowed = edit.exists("/etc/shadow")
    for path, line in (
        ("/etc/passwd", f"{name}:{'x' if shadowed else '*'}:{uid}:{uid}::{home}:{shell}"),
        ("/etc/shadow", f"{name}:*:19000:0:99999:7:::"),
        ("/etc/group", f"{name}:x:{uid}:"),
        ("/etc/gshadow", f"{name}:!::"),
    ):
        if edit.exists(path):
            text = edit.whole_text(path)
            edit.write_text(path, f"{text.rstrip(chr(10))}\n{line}\n" if text else f"{line}\n")
    edit.make_directory(home, uid, uid, 0o755)
    for leaf in edit.guest.names("/etc/skel"):
        path = f"{home}/{leaf}"
        if edit.is_file(f"/etc/skel/{leaf}") and not edit.exists(path):
            edit.write_text(path, edit.text(f"/etc/skel/{leaf}"))
            edit.own(path, uid, uid)
    return Account(name, uid, uid, home)


def change_lines(edit: Editor, path: str, change: Callable[[str], str | None]) -> None:
    """Rewrite a file in place, line by line; None drops a line."""
    if not (text := edit.whole_text(path)):
        return
    changed = [new for line in lines_of(text) if (new := change(line)) is not None]
    new_text = "".join(f"{line}\n" for line in changed)
    if new_text.rstrip("\n") != text.rstrip("\n"):
        edit.write_text(path, new_text)


def remove_accounts(edit: Editor, gone: list[Account]) -> None:
    """Take accounts out of all the files, so that these stay consistent with each other."""
    names = {account.name for account in gone}
    ids = {str(account.uid) for account in gone}
    kept_groups = {account.gid for account in accounts(edit) if account.name not in names}

    def drop(line: str) -> str | None:
        return None if line.split(":")[0] in names else line

    def drop_ids(line: str) -> str | None:
        return None if line.split(":")[0] in names | ids else line

    dropped_groups = {
        fields[0]
        for line in lines_of(edit.whole_text("/etc/group"))
        if len(fields := line.split(":")) >= 4
        and fields[0] in names
        and _number(fields[2]) not in kept_groups
    }

    def leave_groups(line: str) -> str | None:
        fields = line.split(":")
        if fields[0] in dropped_groups:
            return None
        # members are the last field; gshadow has administrators before it
        for index in range(2, len(fields)):
            if index != 2 or (fields[2:3] and not fields[2].isdecimal()):
                fields[index] = ",".join(n for n in fields[index].split(",") if n not in names)
        return ":".join(fields)

    for path in ("/etc/group", "/etc/gshadow"):
        change_lines(edit, path, leave_groups)
    for path in ("/etc/subuid", "/etc/subgid"):
        change_lines(edit, path, drop_ids)
    for path in ("/etc/shadow", "/etc/passwd"):
        change_lines(edit, path, drop)


def lock_passwords(edit: Editor, may_keep: set[str]) -> None:
    """No account but those in `may_keep` keeps a password, and none an empty one. `*` matches no
    password, and unlike a leading `!` leaves key logins alone (sshd(8) without PAM)."""

    def lock(path: str, field: int, fine: tuple[str, ...], locked: str) -> None:
        def change(line: str) -> str:
            fields = line.split(":")
            if len(fields) <= field or fields[field] in fine:
                return line
            if fields[field] and fields[0] in may_keep:
                return line
            # "!" before a hash locks the account but keeps its hash
            edit.record(Action.LOCKED, f"{path}:{fields[0]}")
            fields[field] = locked
            return ":".join(fields)

        change_lines(edit, path, change)

    lock("/etc/shadow", 1, ("*", "!", "!!", "!*", "x"), "*")
    lock("/etc/gshadow", 1, ("*", "!", "!!", "!*", ""), "!")
    # an empty field here lets in without a password, whatever shadow says
    lock("/etc/passwd", 1, ("x", "*", "!"), "x" if edit.exists("/etc/shadow") else "*")
