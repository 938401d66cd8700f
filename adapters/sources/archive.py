"""Archives of strangers (tar and zip), read member by member; in the sandbox
(`adapters.sources.unpacker`).

Nothing is extracted by the name that it has in the archive. Every member has to be a plain regular
file with a sane name; descriptions are small and kept in memory, everything else is written to new
files of our naming. Sources: POSIX pax (ustar and pax headers); GNU tar's long names and sparse
members (tar -S), of which only what is stored is read; PKWARE's APPNOTE for zip.
"""

import contextlib
import hashlib
import os
import re
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, cast
from urllib.parse import unquote

from adapters.sources.sparse import refuse_small_room, write_sparse
from pipeline.errors import UnsafeImage

MEMBERS = 1000
TEXT_LIMIT = 1 << 20
PIECE = 1 << 20
ZIP = b"PK\x03\x04"
READ_LIMIT = 4 << 20  # tarfile reads a pax header, a long name or a sparse map into memory
LENGTH_LIMIT = 64 << 40  # of a sparse disk, whose length costs nothing to claim
# bytes of archive members per byte of archive: zlib reaches a thousand, on zeros
RATIO = 400
NAME_LIMIT, PART_LIMIT = 1000, 255
# what tarfile and zipfile raise on what is no archive, or a damaged one; NotImplementedError is
# zipfile's of a compression or a feature that it does not know
DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError),
    *(ValueError, OverflowError, RecursionError),
)
DIGESTS = {"SHA1": "sha1", "SHA224": "sha224", "SHA256": "sha256", "SHA384": "sha384"}
DIGESTS["SHA512"] = "sha512"
_MANIFEST = re.compile(r"(SHA\d{1,3})\s?\((.+)\)\s?=\s?([0-9a-fA-F]{40,128})", re.IGNORECASE)
DISK_SUFFIXES = (".img", ".qcow2", ".vmdk", ".vhd", ".vhdx", ".vdi", ".raw")
# what macOS adds to archives
CLUTTER = re.compile(r"(.*/)?(\._[^/]*|\.DS_Store)|__MACOSX(/.*)?")


@dataclass(slots=True)
class Contents:
    """`texts` are kept in memory, `files` are where the others were written; by name in the
    archive."""

    texts: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    sparse: set[str] = field(default_factory=set)  # those of `files` that were stored with holes

    def find(self, reference: str, folder: str = "") -> str | None:
        return find_in((*self.texts, *self.files), reference, folder)


def find_in(names: Iterable[str], reference: str, folder: str = "") -> str | None:
    """The member that a description in `folder` means: names in descriptions may be escaped as in
    URLs, and Unicode has two spellings of some letters."""
    known = {unicodedata.normalize("NFC", name): name for name in names}
    for spelled in (reference, unquote(reference)):
        place = f"{folder}/{spelled}" if folder else spelled
        name = unicodedata.normalize("NFC", place.removeprefix("./"))
        if name in known:
            return known[name]
    return None


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in an archive. `pieces` gives what is stored, and where it belongs, once."""

    name: str
    size: int
    stored: int
    sparse: bool
    pieces: Iterator[tuple[int, bytes]]


class Bytes(Protocol):
    """What an archive is read from. Seeks of a pipe go forwards."""

    def read(self, size: int, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...


class _Piped:
    """A pipe, read forwards."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._position = 0

    def read(self, size: int, /) -> bytes:
        """Exactly `size` bytes, or those that are left."""
        data = self._file.read(size)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if whence or offset < self._position:
            raise ValueError("a stream is read forwards")
        while self._position < offset and self.read(min(PIECE, offset - self._position)):
            pass
        return self._position

    def tell(self) -> int:
        return self._position


class _Reads:
    """A file of which tarfile and zipfile read no more than `left` bytes at a time, so that no
    header decides how much memory is used."""

    def __init__(self, file: Bytes) -> None:
        self._file = file
        self.left = READ_LIMIT

    def read(self, size: int = -1) -> bytes:
        if size > self.left:
            raise tarfile.ReadError("a header of an absurd length")
        # without a length: zipfile's way to ask for the last bytes of a file
        data = self._file.read(size if size >= 0 else self.left)
        self.left -= len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


def unpack(
    file: IO[bytes], packed: int | None, into: Path, is_text: Callable[[str], bool]
) -> Contents:
    """Read an archive whole, as `members` does: texts go to memory, everything else to new files in
    `into`. Raises UnsafeImage, and NoSpace when `into` has no room."""
    contents = Contents()
    with members(file, packed) as listed:
        for member in listed:
            if is_text(member.name):
                contents.texts[member.name] = text_of(member)
                continue
            target = into / f"disk-{len(contents.files)}"
            write_member(member, target)
            contents.files[member.name] = target
            if member.sparse:
                contents.sparse.add(member.name)
    if not contents.files and not contents.texts:
        raise UnsafeImage("the archive is empty")
    return contents


@contextlib.contextmanager
def members(file: IO[bytes], packed: int | None) -> Iterator[Iterator[Member]]:
    """The members of an archive in order, each to be read before the next one. `packed`: `file` is
    the pipe of a program that unpacks so many bytes. Raises UnsafeImage for what is no archive, and
    for everything that a hostile one can hold."""
    try:
        if packed is not None:
            stream = _Piped(file)
            yield _limited(_tar_members(stream), RATIO * packed)
            _finish(stream)
        elif file.read(len(ZIP)) == ZIP:
            file.seek(0)
            yield _limited(_zip_members(file), RATIO * os.fstat(file.fileno()).st_size)
        else:
            file.seek(0)
            yield _limited(_tar_members(file), None)
    except DAMAGED as error:
        reason = f"{type(error).__name__}: {str(error)[:200]!a}"
        raise UnsafeImage(f"the archive is damaged, or none: {reason}") from None


def _finish(stream: Bytes) -> None:
    """Read the padding after the last member: only then does the other program look at the
    checksum."""
    for _ in range(READ_LIMIT // PIECE):
        if not stream.read(PIECE):
            return
    raise UnsafeImage("the archive goes on after its end")


def _limited(listed: Iterator[Member], budget: int | None) -> Iterator[Member]:
    """Count members and bytes; no name twice. What macOS adds is left out."""
    seen: set[str] = set()
    total = 0
    for count, member in enumerate(listed):
        if count >= MEMBERS:
            raise UnsafeImage(f"the archive has more than {MEMBERS} members")
        if member.name in seen:
            raise UnsafeImage(f"the archive has the member {member.name!a} twice")
        seen.add(member.name)
        total += member.stored
        if budget is not None and total > budget:
            raise UnsafeImage(
                f"the archive unpacks to {total} bytes or more: over {RATIO} times its own length"
            )
        if not CLUTTER.fullmatch(member.name):
            yield member


def checked_name(text: str) -> str:
    """The name of a member, relative and without a leading `./`."""
    try:
        text.encode()
    except UnicodeEncodeError:  # not in UTF-8: as Windows has it in the west
        text = text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
    name = text.removeprefix("./")
    parts = name.split("/")
    if (
        len(name) > NAME_LIMIT
        or not name.isprintable()
        or ".." in name
        or "\\" in name
        or not all(parts)
        or any(len(part) > PART_LIMIT or part == "." or part.isspace() for part in parts)
    ):
        raise UnsafeImage(f"the archive's member {text[:200]!a} has a name that is not allowed")
    return name


# --- tar -----------------------------------------------------------------------------------------


def _tar_members(file: Bytes) -> Iterator[Member]:
    reads = _Reads(file)
    with tarfile.open(fileobj=cast("IO[bytes]", reads), mode="r:") as archive:
        for info in archive:
            if info.isdir() and info.size == 0:
                if info.name.rstrip("/") not in ("", "."):
                    checked_name(info.name.rstrip("/"))
                reads.left = READ_LIMIT
                continue
            name = _checked_tar_name(info)
            stored = sum(length for _, length in _segments(info))
            pieces = _tar_pieces(archive, reads, info)
            yield Member(name, info.size, stored, info.issparse(), pieces)
            reads.left = READ_LIMIT


def _checked_tar_name(member: tarfile.TarInfo) -> str:
    shown = ascii(member.name[:200])
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.GNUTYPE_SPARSE):
        raise UnsafeImage(f"the archive's member {shown} is no regular file (a link, a device?)")
    name = checked_name(member.name)
    if member.size < 0:
        raise UnsafeImage(f"the archive's member {shown} has a length below zero")
    _check_segments(member, shown)
    return name


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


def _tar_pieces(
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


# --- zip -----------------------------------------------------------------------------------------


def _zip_members(file: IO[bytes]) -> Iterator[Member]:
    reads = _Reads(file)
    with zipfile.ZipFile(cast("IO[bytes]", reads)) as archive:
        for info in archive.infolist():
            shown = ascii(info.filename[:200])
            if info.is_dir():
                checked_name(info.filename.rstrip("/"))
                continue
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise UnsafeImage(
                    f"the archive's member {shown} is no regular file (a link, a device?)"
                )
            if info.flag_bits & 1:
                raise UnsafeImage(f"the archive's member {shown} is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UnsafeImage(
                    f"the archive's member {shown} is compressed by method {info.compress_type}",
                    hint="unpack it with 7z x",
                )
            name = checked_name(info.filename)
            size = info.file_size
            pieces = _zip_pieces(archive, reads, info)
            yield Member(name, size, size, sparse=False, pieces=pieces)
            reads.left = READ_LIMIT


def _zip_pieces(
    archive: zipfile.ZipFile, reads: _Reads, info: zipfile.ZipInfo
) -> Iterator[tuple[int, bytes]]:
    position = 0
    reads.left = READ_LIMIT
    with archive.open(info) as stream:
        while position < info.file_size:
            reads.left = READ_LIMIT
            piece = stream.read(min(PIECE, info.file_size - position))
            if not piece:
                raise UnsafeImage(f"the archive's member {info.filename[:200]!a} is truncated")
            yield position, piece
            position += len(piece)


# --- what members hold ---------------------------------------------------------------------------


def write_member(member: Member, target: Path) -> None:
    """Write a member to a new file. Raises NoSpace, before anything is written where it can."""
    refuse_small_room(target.parent, member.stored)
    write_sparse(member.pieces, member.size, target)


def text_of(member: Member) -> bytes:
    shown = ascii(member.name[:200])
    if member.size > TEXT_LIMIT:
        raise UnsafeImage(f"the archive's member {shown} is larger than 1 MiB")
    if member.sparse:
        raise UnsafeImage(f"the archive's member {shown} is sparse, and no disk")
    return b"".join(piece for _, piece in member.pieces)


def check_manifest(manifest: str, contents: Contents) -> set[str]:
    """Verify an OVF manifest (`SHA256(name)= digest` lines), and return the members that it lists.
    Raises UnsafeImage for a line that is wrong, or not understood."""
    folder = str(PurePosixPath(manifest).parent).removeprefix(".")
    listed: set[str] = set()
    for line in contents.texts[manifest].decode("utf-8-sig", "replace").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _MANIFEST.fullmatch(line.strip())
        if match is None or match[1].upper() not in DIGESTS:
            raise UnsafeImage(f"the archive's manifest has a line that is not known: {line[:99]!a}")
        algorithm, reference, wanted = match[1].upper(), match[2], match[3]
        name = contents.find(reference, folder)
        if name is None:
            raise UnsafeImage(
                f"the archive's manifest lists {reference[:99]!a}, which is not there"
            )
        if name in listed:
            raise UnsafeImage(f"the archive's manifest lists {name[:99]!a} twice")
        listed.add(name)
        if name in contents.sparse:
            raise UnsafeImage(
                f"the archive's manifest lists {name[:99]!a}, which is sparse: an OVA is ustar",
                hint="pack it again without tar's --sparse (-S)",
            )
        if _digest(contents, name, DIGESTS[algorithm]) != wanted.lower():
            raise UnsafeImage(
                f"{name[:99]!a} is not what the archive's manifest says ({algorithm})",
                hint="it was changed since, or damaged: copy or export it again",
            )
    return listed


def _digest(contents: Contents, name: str, algorithm: str) -> str:
    if name in contents.texts:
        return hashlib.new(algorithm, contents.texts[name]).hexdigest()
    with contents.files[name].open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
