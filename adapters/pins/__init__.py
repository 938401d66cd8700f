"""Pins: one point in time of the files of a source.

A file that the work directory's file system can clone is cloned, and the clone is what counts; as
long as nobody writes to the file itself, its bytes are read from there, where they may be in
memory. The others are read where they are, under a read lease where the kernel gives one, and
compared at the end with what they were: device, inode, length, times and, without a lease, samples
of the content (writes through a mapping move the times late). The change time counts too: mtime can
be set back.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from blake3 import blake3

from adapters.filesystem import calls, modes
from adapters.pins.leases import Leases, WriterPresent, open_noatime
from adapters.pins.writers import qemu_lock, writers
from pipeline.errors import Conflict, InvalidParameter, NotFound, SourceChanged
from pipeline.model import SourceFile
from pipeline.ports import Chain, Layer, Pin, Pins

SAMPLES = 64
SAMPLE_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a file was; the names of the fields are shown to people."""

    device: int
    inode: int
    length: int
    modification_time: int
    change_time: int

    @staticmethod
    def of(facts: os.stat_result) -> "Fingerprint":
        return Fingerprint(
            facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
        )

    def differences(self, other: "Fingerprint") -> list[str]:
        return [
            name.replace("_", " ")
            for name in ("device", "inode", "length", "modification_time", "change_time")
            if getattr(self, name) != getattr(other, name)
        ]


class _File:
    """One source file, held open from before it was inspected."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.fd = open_noatime(path)
        except FileNotFoundError:
            raise NotFound(f"no such file: {path}") from None
        facts = os.fstat(self.fd)
        if not stat.S_ISREG(facts.st_mode):
            os.close(self.fd)
            raise InvalidParameter(f"the source {path} is not a regular file")
        self.before = Fingerprint.of(facts)
        self.leased = False
        self._samples = b""

    @property
    def opened(self) -> Path:
        """By what this process opens the file again."""
        return Path(f"/proc/self/fd/{self.fd}")

    def claim(self, leases: Leases) -> None:
        """Lease the file; refuse one that somebody writes to."""
        locked = qemu_lock(self.fd)
        if locked:
            raise self._in_use(f"a running qemu {locked}")
        try:
            self.leased = leases.take(self.fd, self.path)
        except WriterPresent:
            raise self._in_use(self._writers() or "a process has it open for writing") from None
        if not self.leased:
            others = self._writers()
            if others:
                raise self._in_use(others)
            self._samples = self._sample()

    def changes(self) -> list[str]:
        """What is not as it was."""
        try:
            now = Fingerprint.of(self.path.stat())
        except FileNotFoundError:
            return ["it is gone"]
        found = self.before.differences(now)
        if not found and not self.leased and self._sample() != self._samples:
            found.append("content")
        return found

    def close(self) -> None:
        os.close(self.fd)

    def _sample(self) -> bytes:
        hasher = blake3()
        step = max(SAMPLE_LENGTH, self.before.length // SAMPLES)
        for position in range(0, self.before.length, step):
            hasher.update(os.pread(self.fd, SAMPLE_LENGTH, position))
        return hasher.digest()

    def _writers(self) -> str:
        names = writers(self.path)
        return f"open for writing by {', '.join(names)}" if names else ""

    def _in_use(self, why: str) -> Conflict:
        return Conflict(
            f"the source file {self.path} is in use: {why}",
            hint="stop the virtual machine, or take a snapshot of its disk and publish that",
        )


class FilePin:
    """A held point in time of source files: `held` are read in place, `cloned` by the path of the
    clone."""

    def __init__(
        self,
        chains: tuple[Chain, ...],
        held: Sequence[_File],
        cloned: Mapping[Path, _File],
        leases: Leases,
    ) -> None:
        self.chains = chains
        self.method = "lease" if held else "reflink"
        self._files = held
        self._cloned = cloned
        self._leases = leases

    @property
    def detects_changes(self) -> bool:
        """Clones are nobody else's, and of a leased file the kernel tells; a fingerprint may miss a
        change."""
        return all(file.leased for file in self._files)

    def page_cached(self, chain: Chain) -> Chain:
        """Only leased files are read for their clones."""
        page_cached = {path: file for path, file in self._cloned.items() if file.leased}
        return tuple(
            replace(layer, original=page_cached[layer.path].opened)
            if layer.path in page_cached
            else layer
            for layer in chain
        )

    def unchanged(self) -> bool:
        broken = self._leases.broken()
        files = [file for file in self._cloned.values() if file.leased]
        return not any(file.path in broken or file.changes() for file in files)

    def verify(self) -> None:
        """Raise SourceChanged when a file that is read in place is not what it was."""
        _verify(self._files, self._leases)


def _verify(files: Sequence[_File], leases: Leases) -> None:
    broken = leases.broken()
    for file in files:
        changes = file.changes()
        if file.path in broken:
            changes.insert(0, "opened for writing by another process")
        if changes:
            raise SourceChanged(
                f"the source file {file.path} changed while it was read: {', '.join(changes)}",
                hint="nothing was published; publish again while nobody writes to it",
            )


class FilePins:
    """Pins files by cloning them, or by holding and watching them."""

    def fingerprint(self, layer: Layer) -> SourceFile:
        path = layer.path.absolute()
        facts = _status(path)
        return SourceFile(
            str(path),
            layer.format.value,
            facts.st_ino,
            facts.st_size,
            facts.st_mtime_ns,
            facts.st_ctime_ns,
        )

    def changes(self, file: SourceFile) -> list[str]:
        try:
            now = Fingerprint.of(_status(Path(file.path)))
        except NotFound:
            return ["it is gone"]
        # not the device: its number may be another one after the next boot
        then = Fingerprint(
            now.device, file.inode, file.length, file.modification_time, file.change_time
        )
        return then.differences(now)

    @contextlib.contextmanager
    def pin(self, chains: Sequence[Chain], work: Path) -> Iterator[Pin]:
        """Hold every layer of every chain. Raises Conflict when somebody writes to one."""
        with contextlib.ExitStack() as stack:
            files: dict[Path, _File] = {}
            for layer in (layer for chain in chains for layer in chain):
                path = layer.path.absolute()
                if path not in files:
                    files[path] = _File(path)
                    stack.callback(files[path].close)
            leases = Leases()
            stack.callback(leases.close)
            for file in files.values():
                file.claim(leases)
            clones = _clone(files, work, stack)
            # the clones are of one point in time if no file changed until the last was made
            _verify(list(files.values()), leases)
            pinned = tuple(
                tuple(_pinned(layer, clones, files) for layer in chain) for chain in chains
            )
            held = [file for path, file in files.items() if path not in clones]
            cloned = {clone: files[path] for path, clone in clones.items()}
            yield FilePin(pinned, held, cloned, leases)


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"no such file: {path}") from None


def _pinned(layer: Layer, clones: Mapping[Path, Path], files: Mapping[Path, _File]) -> Layer:
    """A layer as it is read: its clone, or the file that is open."""
    path = layer.path.absolute()
    if path in clones:
        return replace(layer, path=clones[path])
    return replace(layer, fd=files[path].fd)


def _clone(
    files: Mapping[Path, _File], work: Path, stack: contextlib.ExitStack
) -> dict[Path, Path]:
    """Clone what can be cloned into the work directory, for as long as the pin is held."""
    clones: dict[Path, Path] = {}
    for number, (path, file) in enumerate(files.items()):
        facts = os.fstat(file.fd)
        if facts.st_dev != work.stat().st_dev:
            continue
        target = work / f"pin-{number}"
        stack.callback(target.unlink, missing_ok=True)
        if calls.clone(file.fd, target):
            target.chmod(modes.outgoing(os.getegid(), [facts]) & ~0o222)
            clones[path] = target
    return clones


_pin: type[Pin] = FilePin
_pins: type[Pins] = FilePins
