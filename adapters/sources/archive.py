"""Archives of strangers (tar, perhaps compressed by gzip), read member by member.

Nothing is extracted by the name that it has in the archive. Every member has to be a plain regular
file with a name on a short list; a disk is written to a new file of our naming, everything else
is small and kept in memory. Source: POSIX pax (ustar and pax headers); GNU tar's long names.
"""

import gzip
import hashlib
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from adapters import durable
from pipeline.errors import NoSpace, UnsafeImage

MEMBERS = 64
TEXT_LIMIT = 1 << 20
PIECE = 1 << 20
HOLE = 64 << 10  # zeros of this length become a hole
READ_LIMIT = 4 << 20  # tarfile reads the whole of a pax header or a long name into memory
# bytes of archive members per byte of archive: zlib reaches a thousand, on zeros
RATIO = 400
SPARE = 64 << 20  # room that is left on the work directory's file system
NAME = re.compile(r"(?:\./)?((?:include/)?[A-Za-z0-9_][A-Za-z0-9_.+() -]{0,199})")
DIRECTORIES = {".", "./", "include", "./include", "include/", "./include/"}
# what tarfile, gzip and zlib raise on what is no archive, or a damaged one
DAMAGED = (
    *(tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile),
    *(ValueError, OverflowError, RecursionError),
)
DIGESTS = {"SHA1": "sha1", "SHA256": "sha256", "SHA512": "sha512"}
_MANIFEST = re.compile(r"(SHA1|SHA256|SHA512)\s?\(([^()\n]+)\)\s?=\s?([0-9a-fA-F]{40,128})")


@dataclass(slots=True)
class Contents:
    """`texts` are kept in memory, `files` are where disks were written; by name in the archive."""

    texts: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)


class _Reads:
    """A file whose single reads are bounded, so that no header decides how much memory is used."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= READ_LIMIT:
            raise tarfile.ReadError("a header of an absurd length")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def unpack(
    path: Path, into: Path, is_text: Callable[[str], bool], is_disk: Callable[[str], bool]
) -> Contents:
    """Read an archive whole: disks go to new files in `into`, texts to memory; a member that is
    neither is refused, like everything else that a hostile archive can hold.

    Raises UnsafeImage, and NoSpace when `into` has no room for a disk.
    """
    contents = Contents()
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        budget = RATIO * os.fstat(raw.fileno()).st_size if compressed else None
        file = gzip.GzipFile(fileobj=raw) if compressed else raw
        try:
            with tarfile.open(fileobj=cast("IO[bytes]", _Reads(file)), mode="r:") as archive:
                for member, name in _members(archive, budget):
                    if is_disk(name):
                        _refuse_small_room(into, member.size)
                        target = into / f"disk-{len(contents.files)}"
                        _write(archive, member, target)
                        contents.files[name] = target
                    elif is_text(name):
                        contents.texts[name] = _text(archive, member)
                    else:
                        raise UnsafeImage(
                            f"the archive has a member {name!a}, which is no part of a machine"
                        )
            if compressed:
                _finish(file)
        except DAMAGED as error:
            reason = f"{type(error).__name__}: {str(error)[:200]!a}"
            raise UnsafeImage(f"the archive is damaged, or none: {reason}") from None
    if not contents.files and not contents.texts:
        raise UnsafeImage("the archive is empty")
    return contents


def _finish(file: IO[bytes] | gzip.GzipFile) -> None:
    """Read the padding after the last member: only then is gzip's checksum looked at."""
    for _ in range(READ_LIMIT // PIECE):
        if not file.read(PIECE):
            return
    raise UnsafeImage("the archive goes on after its end")


def _members(archive: tarfile.TarFile, budget: int | None) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """The regular files of an archive with their names. Raises UnsafeImage for anything else."""
    seen: set[str] = set()
    total = 0
    for count, member in enumerate(archive):
        if count >= MEMBERS:
            raise UnsafeImage(f"the archive has more than {MEMBERS} members")
        if member.isdir() and member.name in DIRECTORIES and member.size == 0:
            continue
        name = _checked_name(member)
        if name in seen:
            raise UnsafeImage(f"the archive has the member {name!a} twice")
        seen.add(name)
        total += member.size
        if budget is not None and total > budget:
            raise UnsafeImage(
                f"the archive unpacks to {total} bytes or more: over {RATIO} times its own length"
            )
        yield member, name


def _checked_name(member: tarfile.TarInfo) -> str:
    shown = ascii(member.name[:200])
    if member.issparse():
        raise UnsafeImage(
            f"the archive's member {shown} is sparse: its length is not what it holds",
            hint="pack it again without tar's --sparse (-S)",
        )
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise UnsafeImage(f"the archive's member {shown} is no regular file (a link, a device?)")
    match = NAME.fullmatch(member.name)
    if match is None or ".." in member.name:
        raise UnsafeImage(f"the archive's member {shown} has a name that is not allowed")
    if member.size < 0:
        raise UnsafeImage(f"the archive's member {shown} has a length below zero")
    return match[1]


def _refuse_small_room(directory: Path, length: int) -> None:
    facts = os.statvfs(directory)
    free = facts.f_bavail * facts.f_frsize
    if length + SPARE > free:
        raise NoSpace(
            f"the archive holds a disk of {length} bytes, and the work directory has room for "
            f"{free}",
            hint="make room there, or set another work directory in the configuration",
        )


def _pieces(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    """A member's bytes; raises when the archive ends before they do."""
    stream = archive.extractfile(member)
    if stream is None:
        raise UnsafeImage(f"the archive's member {member.name[:200]!a} has no content")
    left = member.size
    while left:
        piece = stream.read(min(PIECE, left))
        if not piece:
            raise UnsafeImage(
                f"the archive's member {member.name[:200]!a} says that it has {member.size} bytes, "
                f"but the archive ends {left} before: it is truncated, or lies"
            )
        left -= len(piece)
        yield piece


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > TEXT_LIMIT:
        raise UnsafeImage(f"the archive's member {member.name[:200]!a} is larger than 1 MiB")
    return b"".join(_pieces(archive, member))


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """A new file; runs of zeros become holes."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(target, flags, 0o600), "wb", buffering=0) as file:  # noqa: PTH123
        position = 0
        for piece in _pieces(archive, member):
            for start in range(0, len(piece), HOLE):
                part = piece[start : start + HOLE]
                if part.strip(b"\0"):
                    file.seek(position)
                    view = memoryview(part)
                    while view:
                        view = view[file.write(view) :]
                position += len(part)
        file.truncate(position)


def check_manifest(text: bytes, contents: Contents) -> None:
    """Verify an OVF manifest (`SHA256(name)= digest` lines): every line, and every disk and
    description is in it. Raises UnsafeImage."""
    listed: set[str] = set()
    for line in text.decode("ascii", "replace").splitlines():
        if not line.strip():
            continue
        match = _MANIFEST.fullmatch(line.strip())
        if match is None:
            raise UnsafeImage(f"the archive's manifest has a line that is not known: {line[:99]!a}")
        algorithm, name, wanted = match.groups()
        if name in listed:
            raise UnsafeImage(f"the archive's manifest lists {name[:99]!a} twice")
        listed.add(name)
        found = _digest(contents, name, DIGESTS[algorithm])
        if found is None:
            raise UnsafeImage(f"the archive's manifest lists {name[:99]!a}, which is not there")
        if found != wanted.lower():
            raise UnsafeImage(
                f"{name[:99]!a} is not what the archive's manifest says ({algorithm})"
            )
    covered = {name for name in contents.texts if name.endswith(".ovf")} | set(contents.files)
    if missing := sorted(covered - listed):
        raise UnsafeImage(f"the archive's manifest does not list {missing[0]!a}")


def _digest(contents: Contents, name: str, algorithm: str) -> str | None:
    if name in contents.texts:
        return hashlib.new(algorithm, contents.texts[name]).hexdigest()
    if name in contents.files:
        with contents.files[name].open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    return None


def private_directory(work: Path) -> Path:
    """A new directory in `work`, for what an archive holds."""
    path = work / f"archive-{os.urandom(6).hex()}"
    path.mkdir(mode=0o700)
    return path


def discard(path: Path) -> None:
    durable.remove_tree(path)
