"""The reader of archives, in the sandbox (`adapters.process.parser`). The archive is on standard
input, as a file or as the pipe of a program that unpacks it; disks become new files.
"""

import dataclasses
import json
import sys
from pathlib import Path, PurePosixPath
from typing import IO, Any

from adapters.sources import machines
from adapters.sources.archive import DISK_SUFFIXES, members, unpack, write_member
from pipeline.errors import InvalidParameter, UnsafeImage
from pipeline.model.sources import ArchiveForm


def answer(packed: str, into: str, question: str, *about: str) -> dict[str, Any]:
    """`packed`: how long the file is that a program unpacks, empty when it is read as it is. The
    question is the form of a machine's archive, with which of the machines in it (JSON), or "disk",
    with what messages call the archive."""
    file, length = sys.stdin.buffer, int(packed) if packed else None
    if question == "disk":
        return {"disk": only_disk(file, length, Path(into), *about)}
    contents = unpack(file, length, Path(into), machines.is_text)
    archive = machines.Archive(contents, *json.loads(about[0]))
    plan = machines.plan(ArchiveForm(question), archive)
    said = plan.description
    return {
        "files": {name: path.name for name, path in contents.files.items()},
        "disks": [_spelled(disk) for disk in plan.disks],
        "description": [said.generation, said.architecture, said.controller, said.os_type],
        "described": plan.described,
    }


def _spelled(disk: machines.Disk) -> dict[str, Any]:
    declared = None if disk.declared is None else disk.declared.value
    return {**dataclasses.asdict(disk), "declared": declared}


def only_disk(file: IO[bytes], packed: int | None, into: Path, shown: str) -> str:
    """Write the disk of an archive that holds one, and perhaps texts beside it, to `disk-0`; the
    name of the member."""
    found: list[str] = []
    with members(file, packed) as listed:
        for member in listed:
            name = PurePosixPath(member.name).name.lower()
            if name.endswith((".ovf", ".ova")):
                raise InvalidParameter(
                    f"{shown} is an OVA, not a disk", hint="give it as --ova FILE"
                )
            if name == machines.METADATA:
                raise InvalidParameter(f"{shown} is a Vagrant box", hint="give it as --box FILE")
            if not name.endswith(DISK_SUFFIXES):
                continue
            found.append(member.name)
            if len(found) > 1:
                raise UnsafeImage(
                    f"it holds several disks, {found[0]!a} and {found[1]!a}",
                    hint="unpack it, and name each: --os-disk FILE --data-disk LUN=FILE",
                )
            write_member(member, into / "disk-0")
    if not found:
        raise UnsafeImage("the archive holds no disk (a file named .raw, .img, .vhd, .qcow2, ...)")
    return found[0]
