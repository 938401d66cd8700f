"""Archives of strangers (tar, perhaps compressed by gzip), read member by member.

Nothing is extracted by the name that it has in the archive. Every member has to be a plain regular
file with a name on a short list; a disk is written to a new file of our naming, everything else
is small and kept in memory. Source: POSIX pax (ustar and pax headers); GNU tar's long names and
sparse members (tar -S), of which only what is stored is read.
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

from adapters.filesystem import durable, rawfile
from pipeline.errors import NoSpace, UnsafeImage

MEMBERS = 64
TEXT_LIMIT = 1 << 20
PIECE = 1 << 20
HOLE = 64 << 10  # zeros of this length become a hole
READ_LIMIT = 4 << 20  # tarfile reads a pax header, a long name or a sparse map into memory
LENGTH_LIMIT = 64 << 40  # of a sparse disk, whose length costs nothing to claim
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
    sparse: set[str] = field(default_factory=set)  # those of `files` that were stored with holes


class _Reads:
    """A file of which tarfile reads no more than `left` bytes at a time, so that no header decides
    how much memory is used."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self._file = file
        self.left = READ_LIMIT

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.left:
            raise tarfile.ReadError("a header of an absurd length")
        self.left -= size
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


def unpack(
    path: Path, into: Path, is_text: Callable[[str], bool], is_disk: Callable[[str], bool]
) -> Contents:
    """Read an archive whole: disks go to new files in `into`, texts to memory; a member that is
    neither is refused, like everything else that a hostile archive can hold.

    Raises UnsafeImage, and NoSpace when `into` has no room for a disk.
    """
    try:
        return _unpack(path, into, is_text, is_disk)
    except UnsafeImage as error:
        raise UnsafeImage(f"{str(path)!a} is refused: {error.message}", hint=error.hint) from None


def _unpack(
    path: Path, into: Path, is_text: Callable[[str], bool], is_disk: Callable[[str], bool]
) -> Contents:
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        budget = RATIO * os.fstat(raw.fileno()).st_size if compressed else None
        file = gzip.GzipFile(fileobj=raw) if compressed else raw
        try:
            reads = _Reads(file)
            with tarfile.open(fileobj=cast("IO[bytes]", reads), mode="r:") as archive:
                contents = _read(archive, reads, budget, into, is_text, is_disk)
            if compressed:
                _finish(file)
        except DAMAGED as error:
            reason = f"{type(error).__name__}: {str(error)[:200]!a}"
            raise UnsafeImage(f"the archive is damaged, or none: {reason}") from None
    if not contents.files and not contents.texts:
        raise UnsafeImage("the archive is empty")
    return contents


def _read(
    archive: tarfile.TarFile,
    reads: _Reads,
    budget: int | None,
    into: Path,
    is_text: Callable[[str], bool],
    is_disk: Callable[[str], bool],
) -> Contents:
    contents = Contents()
    for member, name in _members(archive, reads, budget):
        if is_disk(name):
            _refuse_small_room(into, _stored(member))
            target = into / f"disk-{len(contents.files)}"
            _write(archive, reads, member, target)
            contents.files[name] = target
            if member.issparse():
                contents.sparse.add(name)
        elif is_text(name):
            contents.texts[name] = _text(archive, reads, member)
        else:
            raise UnsafeImage(f"the archive has a member {name!a}, which is no part of a machine")
    return contents


def _finish(file: IO[bytes] | gzip.GzipFile) -> None:
    """Read the padding after the last member: only then is gzip's checksum looked at."""
    for _ in range(READ_LIMIT // PIECE):
        if not file.read(PIECE):
            return
    raise UnsafeImage("the archive goes on after its end")


def _members(
    archive: tarfile.TarFile, reads: _Reads, budget: int | None
) -> Iterator[tuple[tarfile.TarInfo, str]]:
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
        total += _stored(member)
        if budget is not None and total > budget:
            raise UnsafeImage(
                f"the archive unpacks to {total} bytes or more: over {RATIO} times its own length"
            )
        yield member, name
        reads.left = READ_LIMIT


def _checked_name(member: tarfile.TarInfo) -> str:
    shown = ascii(member.name[:200])
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.GNUTYPE_SPARSE):
        raise UnsafeImage(f"the archive's member {shown} is no regular file (a link, a device?)")
    match = NAME.fullmatch(member.name)
    if match is None or ".." in member.name:
        raise UnsafeImage(f"the archive's member {shown} has a name that is not allowed")
    if member.size < 0:
        raise UnsafeImage(f"the archive's member {shown} has a length below zero")
    _check_segments(member, shown)
    return match[1]


def _check_segments(member: tarfile.TarInfo, shown: str) -> None:
    """What is stored of a sparse member lies in order and inside of it."""
    end = 0
    for start, length in _segments(member):
        if start < end or length < 0 or start + length > member.size:
            raise UnsafeImage(f"the archive's member {shown} is sparse, and its map is wrong")
        end = start + length
    if member.issparse() and member.size > LENGTH_LIMIT:
        raise UnsafeImage(f"the archive's member {shown} is sparse, of {member.size} bytes")


def _segments(member: tarfile.TarInfo) -> list[tuple[int, int]]:
    """Starts and lengths of what is stored."""
    # typeshed has numbers for these pairs
    found = cast("list[tuple[int, int]] | None", member.sparse)
    return [(0, member.size)] if found is None else found


def _stored(member: tarfile.TarInfo) -> int:
    return sum(length for _, length in _segments(member))


def _refuse_small_room(directory: Path, length: int) -> None:
    facts = os.statvfs(directory)
    free = facts.f_bavail * facts.f_frsize
    if length + SPARE > free:
        raise NoSpace(
            f"the archive holds a disk of {length} bytes, and the work directory has room for "
            f"{free}",
            hint="make room there, or set another work directory in the configuration",
        )


def _pieces(
    archive: tarfile.TarFile, reads: _Reads, member: tarfile.TarInfo
) -> Iterator[tuple[int, bytes]]:
    """What is stored of a member, and where it belongs; raises when the archive ends before."""
    stream = archive.extractfile(member)
    if stream is None:
        raise UnsafeImage(f"the archive's member {member.name[:200]!a} has no content")
    for start, length in _segments(member):
        stream.seek(start)
        left = length
        while left:
            reads.left = READ_LIMIT
            piece = stream.read(min(PIECE, left))
            if not piece:
                raise UnsafeImage(
                    f"the archive's member {member.name[:200]!a} says that it has {member.size} "
                    f"bytes, but the archive ends {left} before: it is truncated, or lies"
                )
            yield start + length - left, piece
            left -= len(piece)


def _text(archive: tarfile.TarFile, reads: _Reads, member: tarfile.TarInfo) -> bytes:
    if member.size > TEXT_LIMIT:
        raise UnsafeImage(f"the archive's member {member.name[:200]!a} is larger than 1 MiB")
    if member.issparse():
        raise UnsafeImage(f"the archive's member {member.name[:200]!a} is sparse, and no disk")
    return b"".join(piece for _, piece in _pieces(archive, reads, member))


def _write(archive: tarfile.TarFile, reads: _Reads, member: tarfile.TarInfo, target: Path) -> None:
    """A new file; what was not stored, and runs of zeros, are holes."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(target, flags, 0o600), "wb", buffering=0) as file:  # noqa: PTH123
        for position, piece in _pieces(archive, reads, member):
            for start in range(0, len(piece), HOLE):
                part = piece[start : start + HOLE]
                if part.strip(b"\0"):
                    rawfile.write_exactly(file.fileno(), memoryview(part), position + start)
        file.truncate(member.size)


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
        if name in contents.sparse:
            raise UnsafeImage(
                f"the archive's manifest lists {name[:99]!a}, which is sparse: an OVA is ustar",
                hint="pack it again without tar's --sparse (-S)",
            )
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
