"""What lies where in a zone, and the records in it.

    galleria-zone.json               name, region, format version, what the file system can do;
                                     also the lock between writers (shared) and `garbage_collect`
    galleria-owner.json              which zone it is, and which catalog's (`ownership`)
    bases/<root digest>/
        base.raw | base.qcow2        the content; a qcow2 is a delta on ../<parent>/base.*
        manifest                     its chunk digests (pipeline.data.manifest)
        base.json                    format, virtual size, parent, how it was made
        fingerprint.json             what the content's file was when it was last known to be sound
    versions/<key>/
        version.json                 the version's document, the bases it holds and its replicas
        nvram.fd                     the variables of its UEFI firmware, where the source had some
        replica-0/os.raw | os.qcow2  a clone of ../../../bases/<digest>/base.raw, or an overlay
        replica-0/data-<lun>.raw     (or .qcow2) the same for each data disk; of a shallow version
                                     an overlay on the source's files, which lie elsewhere
    staging/<token>/, <token>.lock   what is being made; stale when its owner is dead (`durable`)
    quarantine/<digest>-<token>/     a damaged base that a sound one has replaced

A directory in `bases` or `versions` is complete and durable the moment it has its name. All names
that files in a zone hold of each other are relative: a zone can be moved. JSON here is indented,
in UTF-8, and has a `format_version`; an unknown one is refused. `checksum` is the BLAKE3 of the
rest of a record; records of earlier versions have none.

What a zone holds is not trusted: a record is a regular file of bounded length and depth, its
properties are checked one by one, and a name in it is never a path. What is not galleria's, or is
damaged, is left where it is: it costs the version or base that it stands for, and nothing else.
"""

import contextlib
import errno
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3

from adapters.filesystem import full, rawfile
from pipeline.errors import EnvironmentMissing, InvalidParameter, VerificationFailed
from pipeline.ports import ImageFormat

FORMAT_VERSION = 1
ZONE_FILE = "galleria-zone.json"
BASE_FILE = "base.json"
VERSION_FILE = "version.json"
MANIFEST = "manifest"
NVRAM = "nvram.fd"
FINGERPRINT = "fingerprint.json"
BASES, VERSIONS, STAGING, QUARANTINE = "bases", "versions", "staging", "quarantine"
PIECE = 1 << 20
RECORD_LIMIT = 64 << 20  # bytes; a version's has its guest's packages
NVRAM_LIMIT = 64 << 20

# the properties of records that have no checksum: those that were written before there was one
BEFORE_CHECKSUMS = {
    *("format_version", "name", "region", "file_system_id", "profile"),
    *("digest", "virtual_size", "format", "method", "parent"),
    *("key", "document", "bases", "replicas", "sources", "nvram"),
}

SUFFIXES = {ImageFormat.RAW: ".raw", ImageFormat.QCOW2: ".qcow2"}

DIGEST = re.compile(r"[0-9a-f]{64}")
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,200}")


def base_directory(zone: Path, digest: str) -> Path:
    if not DIGEST.fullmatch(digest):
        raise InvalidParameter(f"{digest!r} is not a root digest of 64 hexadecimal digits")
    return zone / BASES / digest


def version_directory(zone: Path, key: str) -> Path:
    if not KEY.fullmatch(key):
        raise InvalidParameter(f"{key!r} can't be the name of a version's directory")
    return zone / VERSIONS / key


def disk_name(lun: int | None) -> str:
    return "os" if lun is None else f"data-{lun}"


def encode(record: Mapping[str, Any]) -> bytes:
    content = {"format_version": FORMAT_VERSION, **record}
    content["checksum"] = _checksum(content)
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"


def decode(path: Path) -> dict[str, Any]:
    """Read a record. Raises FileNotFoundError, or VerificationFailed when it is not one."""
    try:
        record = json.loads(read(path, RECORD_LIMIT))
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"it is not JSON ({error})") from error
    if not isinstance(record, dict):
        raise damaged(path, "it is not a JSON object")
    if record.get("format_version") != FORMAT_VERSION:
        raise damaged(
            path,
            f"its format version is {record.get('format_version')!r}, "
            f"this galleria reads {FORMAT_VERSION}",
        )
    if "checksum" not in record:
        if record.keys() - BEFORE_CHECKSUMS:
            raise damaged(path, "it has no checksum")
    elif record.pop("checksum") != _checksum(record):
        raise damaged(path, "its checksum is wrong")
    return record


def _checksum(record: Mapping[str, Any]) -> str:
    """The digest of what a record says, in whatever order it says it."""
    try:
        text = json.dumps(json.loads(json.dumps(record)), sort_keys=True)
    except RecursionError:
        return ""
    return blake3(text.encode()).hexdigest()


def read(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes; no link is followed, and nothing that
    is no file is waited for. Raises FileNotFoundError and VerificationFailed."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        raise damaged(path, "it is not a regular file") from None
    with os.fdopen(fd, "rb") as file:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise damaged(path, "it is not a regular file")
        if facts.st_size > limit:
            raise damaged(path, f"it has {facts.st_size} bytes, and {limit} are allowed")
        return file.read(limit)


def file_digest(path: Path, *, cached: bool = True) -> str:
    """The BLAKE3 of a file's bytes; not `cached`: of those on the medium."""
    digest = blake3()
    with path.open("rb") as file:
        if not cached:
            rawfile.forget(file.fileno())
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def is_directory(path: Path) -> bool:
    """Whether there is a directory; a link to one is none."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def check_file(path: Path) -> None:
    """Raise VerificationFailed for what is there and is no regular file: a link could lead out of
    the zone, a FIFO would never end."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise damaged(path, "it is not a regular file")


def damaged(path: Path, why: str) -> VerificationFailed:
    return VerificationFailed(
        f"{path} can't be used: {why}",
        hint="replicate the version to this region again, or restore the zone",
    )


@contextlib.contextmanager
def room(zone: Path) -> Iterator[None]:
    """Turn "no space left" and "may not be written", of a call or of a tool, into errors that name
    the zone."""
    hint = "make room there, or give the region a larger zone, and replicate again"
    with full.room(f"the zone {zone}", hint):
        try:
            yield
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise unwritable(zone, error.strerror or "permission denied") from error
            raise


def unwritable(zone: Path, why: str) -> EnvironmentMissing:
    return EnvironmentMissing(
        f"the zone {zone} can't be written by this user: {why}",
        hint="give the directory to the user who publishes (chown -R), or mount it writable",
    )
