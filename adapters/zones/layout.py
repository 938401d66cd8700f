"""What lies where in a zone, and the records in it.

    galleria-zone.json               name, region, format version, what the file system can do;
                                     also the lock between writers (shared) and `garbage_collect`
    bases/<root digest>/
        base.raw | base.qcow2        the content; a qcow2 is a delta on ../<parent>/base.*
        manifest                     its chunk digests (pipeline.data.manifest)
        base.json                    format, virtual size, parent, how it was made
    versions/<key>/
        version.json                 the version's document, the bases it holds and its replicas
        nvram.fd                     the variables of its UEFI firmware, where the source had some
        replica-0/os.raw | os.qcow2  a clone of ../../../bases/<digest>/base.raw, or an overlay
        replica-0/data-<lun>.raw     (or .qcow2) the same for each data disk; of a shallow version
                                     an overlay on the source's files, which lie elsewhere
    staging/<token>/, <token>.lock   what is being made; debris when its owner is dead (`durable`)

A directory in `bases` or `versions` is complete and durable the moment it has its name. All names
that files in a zone hold of each other are relative: a zone can be moved. JSON here is indented,
in UTF-8, and has a `format_version`; an unknown one is refused.
"""

import contextlib
import errno
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adapters.filesystem import full
from pipeline.errors import EnvironmentMissing, InvalidParameter, VerificationFailed
from pipeline.ports import ImageFormat

FORMAT_VERSION = 1
ZONE_FILE = "galleria-zone.json"
BASE_FILE = "base.json"
VERSION_FILE = "version.json"
MANIFEST = "manifest"
NVRAM = "nvram.fd"
BASES, VERSIONS, STAGING = "bases", "versions", "staging"

SUFFIXES = {ImageFormat.RAW: ".raw", ImageFormat.QCOW2: ".qcow2"}

DIGEST = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,200}")


def base_directory(zone: Path, digest: str) -> Path:
    if not DIGEST.fullmatch(digest):
        raise InvalidParameter(f"{digest!r} is not a root digest of 64 hexadecimal digits")
    return zone / BASES / digest


def version_directory(zone: Path, key: str) -> Path:
    if not _KEY.fullmatch(key):
        raise InvalidParameter(f"{key!r} can't be the name of a version's directory")
    return zone / VERSIONS / key


def disk_name(lun: int | None) -> str:
    return "os" if lun is None else f"data-{lun}"


def encode(record: Mapping[str, Any]) -> bytes:
    content = {"format_version": FORMAT_VERSION, **record}
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"


def decode(path: Path) -> dict[str, Any]:
    """Read a record. Raises FileNotFoundError, or VerificationFailed when it is not one."""
    try:
        record = json.loads(path.read_bytes())
    except ValueError as error:
        raise damaged(path, f"it is not JSON ({error})") from error
    if not isinstance(record, dict):
        raise damaged(path, "it is not a JSON object")
    if record.get("format_version") != FORMAT_VERSION:
        raise damaged(
            path,
            f"its format version is {record.get('format_version')!r}, "
            f"this galleria reads {FORMAT_VERSION}",
        )
    return record


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
