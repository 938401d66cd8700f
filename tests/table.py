"""Which operation is shown on which family of guests, and by which tests; as Markdown:

    python -m tests.table

The families' column is kept true by tests/system/test_families.py, which compares it with what the
operations changed in each guest; the names of unit tests are read from their file.
"""

import ast
from collections.abc import Mapping
from pathlib import Path

from pipeline.guest.operations import Operation, Script
from pipeline.guest.profiles import OPERATIONS, Plan, select

FAMILIES = ("debian", "ubuntu", "fedora", "suse", "arch", "alpine")
UNIT_TESTS = Path(__file__).parent / "unit" / "test_generalize.py"
# operation -> those families of tests/system/test_families.py in which it changes something; the
# others do in all
ONLY: Mapping[str, tuple[str, ...]] = {
    "boot-identity": ("fedora",),
    "snakeoil": ("debian", "ubuntu"),
    "rpm-locks": ("fedora", "suse"),
    "swap-files": ("ubuntu",),
    "pacman-keyring": ("arch",),
    "snapshots": (),
    "scripts": (),
}
# shown by other guests than those
ELSEWHERE = {
    "snapshots": "test_layouts (btrfs, snapper)",
    "scripts": "test_layouts (btrfs)",
}
LINUX = tuple(operation for operation in OPERATIONS if operation.families != ("windows",))


def everything(*scripts: Script) -> Plan:
    """Every operation on Linux; scripts only of guests that have programs."""
    names = [operation.name for operation in LINUX if operation.name != "scripts"]
    return select(enable=names, remove_paths=["/opt/*/license.key"], scripts=scripts)


def shown(operation: str) -> tuple[str, ...]:
    """The families on whose guests it is."""
    return ONLY.get(operation, FAMILIES)


def unit_tests() -> dict[str, list[str]]:
    """The tests that name an operation, by its name."""
    source = UNIT_TESTS.read_text(encoding="utf-8")
    names = {operation.name for operation in LINUX}
    found: dict[str, list[str]] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            nodes = [*node.decorator_list, *node.body]
            words = {
                child.value
                for part in nodes
                for child in ast.walk(part)
                if isinstance(child, ast.Constant)
            }
            for name in sorted(names & {word for word in words if isinstance(word, str)}):
                found.setdefault(name, []).append(node.name)
    return found


def rows() -> list[list[str]]:
    units = unit_tests()
    table = [["operation", *FAMILIES, "unit tests", "also"], ["---"] * (len(FAMILIES) + 3)]
    for operation in LINUX:
        cells = [cell(operation, family) for family in FAMILIES]
        unit = units.get(operation.name, [])
        table.append(
            [f"`{operation.name}`", *cells, str(len(unit)), ELSEWHERE.get(operation.name, "")]
        )
    return table


def cell(operation: Operation, family: str) -> str:
    """yes: it changes something in that guest, and nothing planted is left; -: it is not for that
    family; empty: that guest has nothing for it."""
    if family in shown(operation.name):
        return "yes"
    own = {"linux", {"ubuntu": "debian", "fedora": "redhat"}.get(family, family)}
    return "" if own & set(operation.families) else "-"


def main() -> None:
    for row in rows():
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
