"""What a guest consists of, small enough to be stored with every version: its packages, its
configuration files' digests, its accounts. `galleria diff` compares two of these.
"""

from typing import Any

from pipeline.data.text import printable
from pipeline.guest.operations import Editor, lines_of
from pipeline.guest.packages import installed
from pipeline.guest.sbom import bill
from pipeline.ports import Guest, GuestFacts, GuestSession

CONFIGURATION = ("/etc", "/boot/loader")
DIGEST_DIGITS = 32  # of SHA-256: 128 bits tell files apart
FILES_LIMIT = 20_000


def inventory(guest: Guest, session: GuestSession, facts: GuestFacts) -> dict[str, Any]:
    """JSON. May leave nothing mounted: ask it last."""
    files = _files(guest)
    accounts = _accounts(Editor(guest, "inventory"))
    return {"sbom": bill(installed(guest, session), facts), "files": files, "users": accounts}


def _files(guest: Guest) -> dict[str, str]:
    found = {
        printable(path): digest[:DIGEST_DIGITS]
        for directory in CONFIGURATION
        for path, digest in guest.digests(directory).items()
    }
    return dict(sorted(found.items())[:FILES_LIMIT])


def _accounts(reader: Editor) -> dict[str, dict[str, Any]]:
    """Every account of passwd(5): its ids, home and shell, and the groups that list it."""
    groups: dict[str, list[str]] = {}
    for line in lines_of(reader.text("/etc/group")):
        name, *rest = line.split(":")
        for member in rest[2].split(",") if len(rest) > 2 else ():
            groups.setdefault(member, []).append(printable(name))
    found = {}
    for line in lines_of(reader.text("/etc/passwd")):
        fields = line.split(":")
        if len(fields) == 7 and not line.startswith("#"):
            name, _, uid, gid, _, home, shell = fields
            found[printable(name)] = {
                "uid": printable(uid),
                "gid": printable(gid),
                "home": printable(home),
                "shell": printable(shell),
                "groups": sorted(groups.get(name, [])),
            }
    return found
