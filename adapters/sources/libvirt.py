"""Virtual machines that libvirt has, or that a file of its domain XML describes. The XML is parsed
in the sandbox (`adapters.sources.domains`).
"""

import base64
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapters.process import command, parsing
from adapters.process.sandbox import Sandbox
from adapters.sources.domains import DEPTH, Machine
from adapters.sources.xml import LIMIT
from pipeline.data.text import printable
from pipeline.errors import (
    CommandFailed,
    DescriptionInvalid,
    EnvironmentMissing,
    InvalidParameter,
    NotFound,
)
from pipeline.model.descriptions import Description
from pipeline.model.images import ImageFormat
from pipeline.model.sources import Backing, DiskSource, VmSource

NVRAM_LIMIT = 64 << 20  # AArch64's flash; x86's has half a MiB
NAME = re.compile(r"[A-Za-z0-9_.+:][A-Za-z0-9_.+: -]{0,199}")
UNKNOWN_DOMAIN = "failed to get domain"  # what virsh says, in English, of a name that libvirt lacks
TIMEOUT = 60  # libvirt itself gives up after 30 s of waiting for another job of a machine
SESSION = ("HOME", "XDG_RUNTIME_DIR")  # where virsh finds a user's own libvirt


def read_machine(source: VmSource, uri: str, sandbox: Sandbox) -> Machine:
    """The domain of an XML file, or the one of that name of the libvirt at `uri`. Raises NotFound,
    DescriptionInvalid for what galleria does not know to read, and EnvironmentMissing when libvirt
    does not answer."""
    path = Path(source.name)
    if path.is_file():
        return _read(_content(path), path.parent, sandbox)
    if "/" in source.name or source.name.endswith(".xml"):
        raise NotFound(f"no such file: {source.name}")
    return _completed(_read(_dump(uri, source.name), Path("/"), sandbox), uri, sandbox)


def _completed(machine: Machine, uri: str, sandbox: Sandbox) -> Machine:
    """The domain of a machine that is shut off names the top file of each disk alone. What is below
    it is asked of libvirt's storage pools: only volumes of theirs are taken."""
    disks = []
    for disk in machine.disks:
        layers = list(disk.layers)
        content = _volume(uri, disk.path) if not disk.backing else None
        while content is not None and len(layers) <= DEPTH:
            below = _below(content, sandbox)
            content = None if below is None else _volume(uri, below.path)
            if below is not None and content is not None:
                layers.append(below)
        disks.append(replace(disk, backing=tuple(layers[1:])))
    return replace(machine, disks=tuple(disks))


def _volume(uri: str, path: Path) -> bytes | None:
    """What libvirt says of a file that is a volume of one of its pools; None where it is none."""
    try:
        return _virsh(uri, "vol-dumpxml", "--vol", str(path))
    except (NotFound, EnvironmentMissing):
        return None


def _below(content: bytes, sandbox: Sandbox) -> Backing | None:
    (found,) = _ask([(content, Path("/"))], sandbox)
    if "invalid" in found:
        raise DescriptionInvalid(str(found["invalid"]), hint=str(found["hint"]))
    below = found["below"]
    return None if below is None else _layer(*below)


def list_machines(
    directory: Path | None, uri: str, sandbox: Sandbox
) -> list[tuple[str, Machine | DescriptionInvalid]]:
    """The domains of a directory's *.xml files, or of libvirt; for one that is not understood, what
    is wrong with it."""
    if directory is None:
        listing = _virsh(uri, "list", "--all", "--name").decode(errors="replace")
        names = [line.strip() for line in listing.splitlines() if line.strip()]
        found = [(_dump(uri, name), Path("/")) for name in names]
        return list(zip(names, read_domains(found, sandbox), strict=True))
    if not directory.is_dir():
        raise NotFound(f"no such directory: {directory}")
    files = sorted(directory.glob("*.xml"))
    found = [(_content(file), directory) for file in files]
    return list(zip(map(str, files), read_domains(found, sandbox), strict=True))


def _read(content: bytes, directory: Path, sandbox: Sandbox) -> Machine:
    (found,) = read_domains([(content, directory)], sandbox)
    if isinstance(found, DescriptionInvalid):
        raise found
    return found


def read_domains(
    domains: Sequence[tuple[bytes, Path]], sandbox: Sandbox
) -> list[Machine | DescriptionInvalid]:
    """Domains, with where paths in them are relative to, parsed in the sandbox: by one process, or
    where that comes to no end, by one each."""
    if not domains:
        return []
    try:
        found = [_machine(spelled) for spelled in _ask(domains, sandbox)]
    except (parsing.Unreadable, KeyError, TypeError, ValueError) as error:
        if len(domains) == 1:
            reason = f"the domain XML cannot be read: {printable(str(error)[:300])}"
            return [DescriptionInvalid(reason)]
        return [machine for one in domains for machine in read_domains([one], sandbox)]
    return found


def _ask(documents: Sequence[tuple[bytes, Path]], sandbox: Sandbox) -> list[Mapping[str, Any]]:
    """What `adapters.sources.domains` says of each."""
    asked = [[base64.b64encode(content).decode(), str(place)] for content, place in documents]
    answer = parsing.ask(
        "adapters.sources.domains",
        (),
        sandbox,
        parsing.Given(stdin=json.dumps(asked).encode()),
        directories=parsing.directories("defusedxml"),
    )
    found: list[Mapping[str, Any]] = list(answer["domains"])
    if len(found) != len(documents):
        raise ValueError("other domains than those")
    return found


def _machine(spelled: Mapping[str, Any]) -> Machine | DescriptionInvalid:
    """What `adapters.sources.domains` says of one."""
    if "invalid" in spelled:
        return DescriptionInvalid(str(spelled["invalid"]), hint=str(spelled["hint"]))
    disks = tuple(
        DiskSource(
            None if number == 0 else number - 1,
            layers[0].path,
            declared=layers[0].declared,
            backing=layers[1:],
            sector_size=int(disk["sector_size"]),
        )
        for number, disk in enumerate(spelled["disks"])
        if (layers := tuple(_layer(*layer) for layer in disk["layers"]))
    )
    targets = tuple(str(disk["target"]) for disk in spelled["disks"])
    generation, architecture, controller, os_type = (
        None if word is None else str(word) for word in spelled["description"]
    )
    return Machine(
        name=str(spelled["name"]),
        disks=disks,
        description=Description(generation, architecture, controller, os_type),
        nvram=None if spelled["nvram"] is None else Path(str(spelled["nvram"])),
        live=bool(spelled["live"]),
        targets=targets,
    )


def _layer(path: object, format: object) -> Backing:
    return Backing(Path(str(path)), ImageFormat(format))


def _content(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise DescriptionInvalid(f"{str(path)!a} is not a regular file")
        return file.read(LIMIT + 1)


def _dump(uri: str, name: str) -> bytes:
    if not NAME.fullmatch(name):
        raise InvalidParameter(f"{name!a} is no name of a virtual machine")
    return _virsh(uri, "dumpxml", "--domain", name)


def virsh(uri: str, *arguments: str) -> bytes:
    """What virsh prints. Raises CommandFailed."""
    env = {name: os.environ[name] for name in SESSION if name in os.environ}
    argv = ["virsh", "--connect", uri, *arguments]
    return command.run(argv, timeout=TIMEOUT, env=env).stdout


def _virsh(uri: str, *arguments: str) -> bytes:
    try:
        return virsh(uri, *arguments)
    except CommandFailed as error:
        kind = NotFound if UNKNOWN_DOMAIN in error.stderr else EnvironmentMissing
        raise kind(
            f"libvirt does not tell: {error.message}", hint="a file of domain XML works as well"
        ) from error
