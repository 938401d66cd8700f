"""Swap files: pages of memory, passwords among them, in a file system that calls them used."""

from pipeline.errors import StageFailed
from pipeline.guest.operations import Context, Editor, Operation, lines_of

COMMON = ("/swapfile", "/swap.img", "/swap/swapfile", "/var/swap", "/var/swapfile", "/.swapfile")
PAGES = (4096, 8192, 16384, 65536)
SIGNATURES = (b"SWAPSPACE2", b"SWAP-SPACE")
HIBERNATED = (b"S1SUSPEND\0", b"S2SUSPEND\0", b"ULSUSPEND\0", b"LINHIB0001")


def empty_swap_files(edit: Editor, _: Context) -> None:
    for path in _files(edit):
        real = edit.follow(path)
        if not edit.is_file(real):
            continue
        head = edit.guest.read(real, PAGES[-1])
        ends = {head[page - 10 : page]: page for page in reversed(PAGES) if len(head) >= page}
        if any(mark in ends for mark in HIBERNATED):
            raise StageFailed(
                f"{real} holds a hibernated system",
                hint="start the guest and shut it down, so that it wakes up and ends",
            )
        page = next((ends[mark] for mark in SIGNATURES if mark in ends), None)
        if page is not None:
            edit.hollow(real, page)


def _files(edit: Editor) -> list[str]:
    """Those of fstab(5), and those that have the usual names."""
    listed = []
    for line in lines_of(edit.text("/etc/fstab")):
        fields = line.split()
        if len(fields) >= 3 and fields[2] == "swap" and fields[0].startswith("/"):
            path = fields[0]
            if not path.startswith("/dev/") and ".." not in path.split("/"):
                listed.append(path)
    return sorted({*listed, *COMMON})


OPERATIONS = (
    Operation(
        "swap-files",
        "Give up what is in swap files; their headers stay",
        "Swapped memory holds passwords, keys and documents.",
        empty_swap_files,
        paths=("/etc/fstab", *COMMON),
    ),
)
