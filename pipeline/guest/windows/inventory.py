"""What a Windows guest consists of, as far as its registry says: installed programs (not Windows's
own updates and features), people's profiles, and the network's few configuration files.
"""

from collections.abc import Iterator
from typing import Any

from pipeline.data.text import printable
from pipeline.errors import Refused
from pipeline.guest.sbom import bill
from pipeline.guest.windows import registry
from pipeline.guest.windows.tree import Tree
from pipeline.ports import Guest, GuestFacts, Package
from pipeline.ports.hives import Hive

# what "Apps and features" lists; the second one has programs of 32 bits (Microsoft, "Uninstall
# registry key")
UNINSTALL = "Microsoft\\Windows\\CurrentVersion\\Uninstall"
PROGRAMS = {UNINSTALL: "x64", f"WOW6432Node\\{UNINSTALL}": "x86"}
PROFILES = "Microsoft\\Windows NT\\CurrentVersion\\ProfileList"
PERSON = "S-1-5-21-"  # how the identifiers of accounts of a machine or a domain begin
CONFIGURATION = "/Windows/System32/drivers/etc"
DIGEST_DIGITS = 32  # of SHA-256: 128 bits tell files apart


def windows_inventory(guest: Guest, facts: GuestFacts) -> dict[str, Any]:
    """JSON, in the form of a Linux guest's; empty when the hive can't be read."""
    tree = Tree(guest)
    path = registry.hive_path(tree, "SOFTWARE")
    if path is None:
        return {}
    try:
        with guest.hive(path) as hive:
            programs = sorted(set(_programs(hive)), key=lambda item: (item.name, item.version))
            users = dict(sorted(_profiles(hive)))
    except Refused:  # said by the classification already
        return {}
    directory = tree.at(CONFIGURATION)
    digests = {} if directory is None else guest.digests(directory)
    files = {printable(name): digest[:DIGEST_DIGITS] for name, digest in sorted(digests.items())}
    return {"sbom": bill(programs, facts), "files": files, "users": users}


def _programs(hive: Hive) -> Iterator[Package]:
    for key, architecture in PROGRAMS.items():
        for entry in hive.keys(key):
            name = registry.text(hive, f"{key}\\{entry}", "DisplayName")
            if name:  # those without a name are parts of others
                version = registry.text(hive, f"{key}\\{entry}", "DisplayVersion") or ""
                yield Package(printable(name), printable(version), architecture, "generic")


def _profiles(hive: Hive) -> Iterator[tuple[str, dict[str, str]]]:
    for identifier in hive.keys(PROFILES):
        if identifier.upper().startswith(PERSON):
            home = registry.text(hive, f"{PROFILES}\\{identifier}", "ProfileImagePath") or ""
            name = home.rpartition("\\")[2] or identifier
            relative = identifier.rpartition("-")[2]  # the rest is the machine's own
            yield printable(name), {"rid": printable(relative), "home": printable(home)}
