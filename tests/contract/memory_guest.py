"""The in-memory double of the Guest ports. The contract suite runs over it too, so it can't lie."""

import fnmatch
import hashlib
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from dissect.regf import RegistryHive
from dissect.regf.exceptions import Error

from fixtures import hive
from pipeline.errors import Refused, StageFailed
from pipeline.ports import (
    Chain,
    FileStat,
    FreeSpace,
    Guest,
    GuestFacts,
    GuestHost,
    GuestSession,
    Package,
    Unmounted,
    VolumeState,
)
from pipeline.ports.extents import Range
from pipeline.ports.hives import Hive, RegistryValue


@dataclass
class Node:
    kind: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    content: bytes = b""
    target: str = ""
    label: str = ""
    children: dict[str, "Node"] = field(default_factory=dict)


class MemoryGuest:
    """A tree of nodes; links in the middle of a path are resolved, as the ports ask."""

    def __init__(self) -> None:
        self.root = Node("directory")
        self.scripts: list[str] = []
        self.kept_snapshots: list[str] = []

    # what tests plant

    def plant(
        self, path: str, content: bytes | str = b"", *, mode: int = 0o644, uid: int = 0
    ) -> None:
        """A file, with the directories on its way (owned by `uid` below the first two)."""
        content = content.encode() if isinstance(content, str) else content
        self.plant_directory(str(PurePosixPath(path).parent), uid=uid)
        self._at(str(PurePosixPath(path).parent)).children[PurePosixPath(path).name] = Node(
            "file", mode, uid, uid, content
        )

    def plant_directory(self, path: str, *, mode: int = 0o755, uid: int = 0) -> None:
        node = self.root
        for depth, part in enumerate(PurePosixPath(path).parts[1:]):
            owner = uid if depth else 0
            node = node.children.setdefault(part, Node("directory", mode, owner, owner))

    # the port

    def real(self, path: str) -> str:
        directory, name = self._split(path)
        found = self._resolve(directory)
        return path if found is None else f"{found.rstrip('/')}/{name}"

    def stat(self, path: str) -> FileStat | None:
        node = self._find(path)
        if node is None:
            return None
        length = len(node.target if node.kind == "symlink" else node.content)
        return FileStat(node.kind, node.mode, node.uid, node.gid, length)

    def names(self, path: str) -> list[str]:
        node = self._find(path)
        return sorted(node.children) if node is not None else []

    def glob(self, pattern: str) -> list[str]:
        found = ["/"]
        for part in PurePosixPath(pattern).parts[1:]:
            found = [
                f"{base.rstrip('/')}/{name}"
                for base in found
                for name in self._listed(base)
                if fnmatch.fnmatchcase(name, part)
                and (not name.startswith(".") or part.startswith("."))
            ]
        return sorted(found)

    def find(self, path: str) -> list[tuple[str, FileStat]]:
        real = self.real(path)
        found = []
        for name in self.names(path):
            below = f"{real.rstrip('/')}/{name}"
            stat = self.stat(below)
            assert stat is not None
            found += [(below, stat), *self.find(below)]
        return sorted(found, key=lambda item: item[0])

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        return self._file(path).content[:limit]

    def readlink(self, path: str) -> str:
        node = self._find(path)
        if node is None or node.kind != "symlink":
            raise StageFailed(f"{path} is no link")
        return node.target

    def digests(self, path: str) -> dict[str, str]:
        return {
            name: hashlib.sha256(self._file(name).content).hexdigest()
            for name, stat in self.find(path)
            if stat.kind == "file"
        }

    def initramfs(self, path: str) -> list[str]:
        """The double's archives are lists: a name a line."""
        return sorted(self._file(path).content.decode().split())

    def write(self, path: str, content: bytes, mode: int | None = None) -> None:
        node = self._find(path)
        if node is None:
            directory, name = self._split(path)
            node = self._at(directory).children[name] = Node("file", 0o644)
        self._file(path).content = content
        if mode is not None:
            node.mode = mode

    def truncate(self, path: str) -> None:
        self._file(path).content = b""

    def remove(self, path: str) -> None:
        if self._find(path) is not None:
            directory, name = self._split(path)
            del self._at(directory).children[name]

    def set_name(self, path: str, name: str) -> None:
        directory, old = self._split(path)
        children = self._at(directory).children
        if "/" in name or name in children:
            raise Refused(f"{path!r} cannot be renamed to {name!r}")
        children[name] = children.pop(old)

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        if path != "/" and self._find(path) is None:
            directory, name = self._split(path)
            self.mkdir(directory, mode)
            self._at(directory).children[name] = Node("directory", mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        node = self._find(path)
        assert node is not None
        node.uid, node.gid = uid, gid

    def symlink(self, target: str, path: str) -> None:
        directory, name = self._split(path)
        self._at(directory).children[name] = Node("symlink", 0o777, target=target)

    def hollow(self, path: str, keep: int) -> None:
        node = self._file(path)
        node.content = node.content[:keep] + bytes(len(node.content[keep:]))

    def snapshots(self) -> list[str]:
        return self.kept_snapshots

    def remove_snapshots(self) -> None:
        self.kept_snapshots = []

    def label(self, path: str) -> str:
        node = self._find(path)
        return "" if node is None else node.label

    def run(self, script: str) -> str:
        self.scripts.append(script)
        return ""

    def set_label(self, path: str, label: str) -> None:
        node = self._find(path)
        assert node is not None
        node.label = label

    @contextmanager
    def hive(self, path: str, *, writable: bool = False) -> Iterator[Hive]:
        try:
            opened = MemoryHive(self._file(path).content)
        except (Error, struct.error) as error:
            raise Refused(f"{path}: {error}") from error
        yield opened
        if opened.changed:
            assert writable
            self._file(path).content = hive.write(opened.root, sequences=opened.sequences)

    def _split(self, path: str) -> tuple[str, str]:
        pure = PurePosixPath(path)
        if not pure.is_absolute() or ".." in pure.parts:
            raise Refused(f"{path!r} is no absolute path without '..'")
        if path.startswith("//"):
            pure = PurePosixPath("/", path.lstrip("/"))
        return str(pure.parent), pure.name

    def _file(self, path: str) -> Node:
        node = self._find(path)
        if node is None or node.kind != "file":
            raise Refused(f"{path!r} is no file")
        return node

    def _listed(self, path: str) -> list[str]:
        real = self._resolve(path)
        return self.names(real) if real is not None else []

    def _at(self, path: str) -> Node:
        """A directory, links followed."""
        real = self._resolve(path)
        node = None if real is None else self._walk(real)
        if node is None or node.kind != "directory":
            raise StageFailed(f"{path!r} is no directory")
        return node

    def _find(self, path: str) -> Node | None:
        """A node, links in the middle followed."""
        directory, name = self._split(path)
        real = self._resolve(directory)
        return None if real is None else self._walk(f"{real.rstrip('/')}/{name}")

    def _walk(self, real: str) -> Node | None:
        node: Node | None = self.root
        for part in PurePosixPath(real).parts[1:]:
            node = node.children.get(part) if node is not None else None
        return node

    def _resolve(self, path: str) -> str | None:
        """The real path of a directory, or None when there is none: realpath(3) in the guest."""
        pending = list(PurePosixPath(path).parts[1:])[::-1]
        real: list[str] = []
        steps = 0
        while pending:
            part = pending.pop()
            if part == "..":
                del real[-1:]
                continue
            node = self._walk("/" + "/".join([*real, part]))
            if node is None:
                return None
            if node.kind == "symlink":
                steps += 1
                if steps > 40:
                    return None
                target = PurePosixPath(node.target)
                if target.is_absolute():
                    real = []
                pending += [p for p in target.parts if p != "/"][::-1]
            else:
                real.append(part)
        return "/" + "/".join(real)


class MemoryHive:
    """A hive's file, read by dissect.regf and written by the fixtures' writer."""

    def __init__(self, content: bytes) -> None:
        self.root = _tree(RegistryHive(BytesIO(content)).root())
        (sequence,) = struct.unpack_from("<I", content, 4)
        self.sequences = (sequence + 1, sequence + 1)  # as every writer leaves them
        self.changed = False

    def has(self, key: str) -> bool:
        return self._find(key) is not None

    def keys(self, key: str) -> list[str]:
        found = self._find(key)
        return list(found.keys) if found else []

    def values(self, key: str) -> list[str]:
        found = self._find(key)
        return list(found.values) if found else []

    def get(self, key: str, name: str) -> RegistryValue | None:
        values = (found := self._find(key)) and found.values
        value = values.get(_same(values, name)) if values else None
        return RegistryValue(value.kind, value.data) if value else None

    def set(self, key: str, name: str, value: RegistryValue) -> None:
        node = self.root
        for part in key.split("\\"):
            node = node.keys.setdefault(_same(node.keys, part), hive.Key())
        node.values[_same(node.values, name)] = hive.Value(value.kind, value.data)
        self.changed = True

    def delete(self, key: str, name: str) -> None:
        found = self._find(key)
        if found and found.values.pop(_same(found.values, name), None):
            self.changed = True

    def _find(self, key: str) -> hive.Key | None:
        node: hive.Key | None = self.root
        for part in key.split("\\") if key else []:
            node = node and node.keys.get(_same(node.keys, part))
        return node


def _same(names: Iterable[str], name: str) -> str:
    """The spelling that a name has, looked up without regard to case."""
    return next((known for known in names if known.lower() == name.lower()), name)


def _tree(key: Any) -> hive.Key:
    values = {
        "" if value.name == "(Default)" else value.name: hive.Value(value.type, bytes(value.data))
        for value in key.values()
    }
    return hive.Key(values, {child.name: _tree(child) for child in key.subkeys()})


@dataclass
class MemorySession:
    guest: MemoryGuest
    facts: GuestFacts
    free: FreeSpace
    states: tuple[VolumeState, ...] = ()
    mounted: bool = False
    rpms: tuple[Package, ...] = ()
    others: Mapping[str, MemoryGuest] = field(default_factory=dict)
    below: MemoryGuest | None = None  # the guest without what covers something
    covers: tuple[str, ...] = ()
    left: tuple[Unmounted, ...] = ()

    def inspect(self) -> GuestFacts:
        return self.facts

    def mount(self, *, writable: bool = True, without: Collection[str] = ()) -> Guest:
        self.mounted = True
        return self.below if without and self.below is not None else self.guest

    def covered(self) -> tuple[str, ...]:
        return self.covers

    def unmounted(self) -> tuple[Unmounted, ...]:
        return self.left

    def mount_volume(self, device: str, at: str = "/", *, writable: bool = True) -> Guest:
        if at == "/":
            return self.others[device]
        placed = MemoryGuest()
        placed.mkdir(str(PurePosixPath(at).parent))
        placed._at(str(PurePosixPath(at).parent)).children[PurePosixPath(at).name] = self.others[
            device
        ].root
        return placed

    def volumes(self) -> tuple[VolumeState, ...]:
        return self.states

    def rpm_packages(self) -> tuple[Package, ...]:
        return self.rpms

    def free_ranges(self, *, zero_rest: bool) -> FreeSpace:
        return self.free


class MemoryHost:
    """Every session sees the same guest; `free` has one entry a disk."""

    def __init__(
        self,
        guest: MemoryGuest,
        facts: GuestFacts | None = None,
        free: Sequence[Sequence[Range]] = ((),),
        states: tuple[VolumeState, ...] = (),
        rpms: tuple[Package, ...] = (),
        others: Mapping[str, MemoryGuest] | None = None,
        *,
        left: tuple[Unmounted, ...] = (),
        below: MemoryGuest | None = None,
        covers: tuple[str, ...] = (),
    ) -> None:
        self.guest = guest
        self.facts = facts or GuestFacts(os_type="linux", distribution="debian", hostname="oldbox")
        self.free = FreeSpace(tuple(tuple(ranges) for ranges in free), ("a note",))
        self.states = states
        self.rpms = rpms
        self.others = others or {}
        self.left, self.below, self.covers = left, below, covers
        self.sessions: list[MemorySession] = []

    @contextmanager
    def session(self, chains: Sequence[Chain], *, writable: bool) -> Iterator[MemorySession]:
        self.sessions.append(MemorySession(self.guest, self.facts, self.free, self.states))
        self.sessions[-1].rpms = self.rpms
        self.sessions[-1].others = self.others
        self.sessions[-1].left = self.left
        self.sessions[-1].below, self.sessions[-1].covers = self.below, self.covers
        yield self.sessions[-1]


if TYPE_CHECKING:
    _guest: type[Guest] = MemoryGuest
    _session: type[GuestSession] = MemorySession
    _host: type[GuestHost] = MemoryHost
