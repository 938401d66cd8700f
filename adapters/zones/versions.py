"""Versions in a zone: their records and replicas."""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from blake3 import blake3

from adapters.filesystem import durable, modes
from adapters.process.sandbox import Sandbox
from adapters.zones import children, guard, layout, schema
from pipeline.errors import Conflict, GalleriaError, NotFound, VerificationFailed
from pipeline.ports import ImageFormat, Replica, ReplicaDisk, ShallowDisk, VersionRecord
from pipeline.ports.runs import Lease

_UID = re.compile(r"[0-9a-f]{32}$")  # what the name of every version ends in


@dataclass(frozen=True, slots=True)
class Found:
    """A version in a zone. `bases` are digests by LUN, held also when no replica is here; `sources`
    are the files outside that a shallow version depends on."""

    record: VersionRecord
    replicas: tuple[Replica, ...]
    bases: Mapping[int | None, str]
    sources: tuple[Path, ...] = ()


def find(zone: Path, key: str) -> Found | None:
    """A version and its replicas. Raises VerificationFailed if its record is broken."""
    directory = layout.version_directory(zone, key)
    path = directory / layout.VERSION_FILE
    if not layout.is_directory(directory):
        return None
    try:
        content = layout.decode(path)
        return _parse(content, key, directory)
    except FileNotFoundError:
        if unfinished := sorted(directory.glob("replica-*")):
            raise layout.damaged(path, f"it is gone, and {unfinished[0].name} is there") from None
        return None
    except (KeyError, ValueError, TypeError) as error:
        raise layout.damaged(path, f"a property is wrong: {error}") from None


def _parse(content: Mapping[str, Any], key: str, directory: Path) -> Found:
    if (recorded := schema.text(content, "key")) != key:
        raise ValueError(f"it is the record of {recorded!a:.100}")
    nvram = None
    if content["nvram"] is not None:
        schema.text(content, "nvram", re.escape(layout.NVRAM))
        nvram = _nvram(directory, content)
    return Found(
        VersionRecord(key, schema.document(content, "document"), nvram),
        schema.objects(content, "replicas", partial(_replica, directory)),
        dict(schema.objects(content, "bases", _base)),
        schema.paths(content, "sources"),
    )


def _nvram(directory: Path, content: Mapping[str, Any]) -> bytes:
    """The firmware's variables, if they are what the record says. Records of earlier versions say
    nothing of them."""
    path = directory / layout.NVRAM
    try:
        nvram = layout.read(path, layout.NVRAM_LIMIT)
    except FileNotFoundError:
        raise layout.damaged(path, "it is not there") from None
    if "nvram_digest" in content:
        wanted = schema.digest(content, "nvram_digest")
        if blake3(nvram).hexdigest() != wanted:
            raise layout.damaged(path, "it is not what was written")
    return nvram


def nvram_remains(zone: Path, key: str) -> bytes | None:
    """The firmware's variables of a version whose record can't be used. Raises VerificationFailed
    when the record can, and says that they are not right."""
    directory = layout.version_directory(zone, key)
    try:
        content = layout.decode(directory / layout.VERSION_FILE)
    except (OSError, VerificationFailed):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return layout.read(directory / layout.NVRAM, layout.NVRAM_LIMIT)
        return None
    return None if content.get("nvram") is None else _nvram(directory, content)


def _base(item: Mapping[str, Any]) -> tuple[int | None, str]:
    return schema.lun(item), schema.digest(item)


def _replica(directory: Path, item: Mapping[str, Any]) -> Replica:
    index = schema.number(item, "index", schema.COUNT_LIMIT)
    place = directory / _name(index)
    return Replica(index, schema.objects(item, "disks", partial(_disk, place)))


def _disk(place: Path, item: Mapping[str, Any]) -> ReplicaDisk:
    lun, format = schema.lun(item), schema.disk_format(item)
    path = place / (layout.disk_name(lun) + layout.SUFFIXES[format])
    schema.text(item, "path", re.escape(f"{place.name}/{path.name}"))
    method = schema.text(item, "method", "reflink|overlay|shallow")
    layout.check_file(path)
    return ReplicaDisk(
        lun,
        path,
        format,
        method,
        "" if method == children.SHALLOW else schema.digest(item),
        schema.number(item, "virtual_size"),
        schema.digest(item, "file_digest") if "file_digest" in item else "",
    )


@dataclass(frozen=True, slots=True)
class Listing:
    """What is in the directory of versions. `problems` are records that can't be read, by key;
    `foreign` are names of what is not galleria's."""

    found: tuple[Found, ...]
    problems: Mapping[str, Exception]
    foreign: tuple[str, ...]


def every(zone: Path) -> Listing:
    """Every version; one that can't be read costs itself only."""
    found, problems, foreign = [], {}, []
    for entry in sorted((zone / layout.VERSIONS).iterdir()):
        if not layout.KEY.fullmatch(entry.name) or not layout.is_directory(entry):
            foreign.append(entry.name)
            continue
        try:
            version = find(zone, entry.name)
        except (OSError, GalleriaError) as error:
            problems[entry.name] = error
            continue
        if version is not None:
            found.append(version)
        elif _UID.search(entry.name):
            problems[entry.name] = layout.damaged(entry, f"it has no {layout.VERSION_FILE}")
        else:
            foreign.append(entry.name)
    return Listing(tuple(found), problems, tuple(foreign))


def publish(
    zone: Path,
    sandbox: Sandbox,
    record: VersionRecord,
    disks: Mapping[int | None, str],
    count: int,
    lease: Lease,
    *,
    immutable: bool = False,
) -> tuple[Replica, ...]:
    """Make a version's replicas, all or none; one that is there gets the wanted number of them."""
    disks = dict(sorted(disks.items(), key=_os_first))
    try:
        there = _same(zone, record, disks)
    except VerificationFailed:  # what is there under this key can't be used
        return restore(zone, sandbox, record, disks, count, lease, immutable=immutable)
    if there is None:
        with layout.room(zone), durable.Staging(zone / layout.STAGING, lease) as staging:
            replicas = _make(zone, sandbox, disks, staging.path, range(count))
            _commit(zone, staging, Found(record, replicas, disks), immutable=immutable)
    there = _same(zone, record, disks)
    if there is None:
        raise VerificationFailed(f"the version {record.key} vanished from the zone {zone}")
    if len(there) == count:
        return there
    return set_replicas(zone, sandbox, record.key, count, lease)


def restore(
    zone: Path,
    sandbox: Sandbox,
    record: VersionRecord,
    disks: Mapping[int | None, str],
    count: int,
    lease: Lease,
    *,
    immutable: bool = False,
) -> tuple[Replica, ...]:
    """Make a version's record and replicas anew; what is there under its key goes to quarantine."""
    disks = dict(sorted(disks.items(), key=_os_first))
    directory = layout.version_directory(zone, record.key)
    with layout.room(zone), durable.Staging(zone / layout.STAGING, lease) as staging:
        replicas = _make(zone, sandbox, disks, staging.path, range(count))
        version = Found(record, replicas, disks)
        if os.path.lexists(directory):
            _fill(staging, version)
            name = f"{record.key}-{staging.path.name}"
            guard.freeze(directory, on=False)
            with guard.names(directory.parent, immutable=immutable):
                staging.commit_over(directory, zone / layout.QUARANTINE / name)
            guard.freeze(directory, on=immutable)
        else:
            _commit(zone, staging, version, immutable=immutable)
    found = find(zone, record.key)
    if found is None:
        raise VerificationFailed(f"the version {record.key} vanished from the zone {zone}")
    return found.replicas


def publish_shallow(
    zone: Path,
    sandbox: Sandbox,
    record: VersionRecord,
    disks: Sequence[ShallowDisk],
    lease: Lease,
    *,
    immutable: bool = False,
) -> tuple[Replica, ...]:
    """Make a shallow version's one replica. An earlier one of the same key is replaced: it may
    depend on what the sources were then."""
    remove(zone, record.key, lease)
    sources = tuple(layer.path.absolute() for disk in disks for layer in disk.chain)
    with layout.room(zone), durable.Staging(zone / layout.STAGING, lease) as staging:
        place = staging.path / "replica-0"
        place.mkdir(mode=modes.DIRECTORY)
        made = []
        for disk in disks:
            path = place / f"{layout.disk_name(disk.lun)}.qcow2"
            size = disk.virtual_size
            children.create_overlay(sandbox, disk.chain, path, size, overlay=disk.overlay)
            shallow = ReplicaDisk(disk.lun, path, ImageFormat.QCOW2, children.SHALLOW, "", size)
            made.append(children.digested(shallow))
        shallow_version = Found(record, (Replica(0, tuple(made)),), {}, sources)
        _commit(zone, staging, shallow_version, immutable=immutable)
    found = find(zone, record.key)
    if found is None:
        raise VerificationFailed(f"the version {record.key} vanished from the zone {zone}")
    return found.replicas


def set_replicas(
    zone: Path, sandbox: Sandbox, key: str, count: int, lease: Lease
) -> tuple[Replica, ...]:
    """Add replicas to a version, or take the last ones away.

    The record says which count: new ones are in place before it is replaced, and those that go
    leave after. What a crash leaves beside them goes with the next call.
    """
    # of two runs only one has the version, and it must not wait for one that hangs
    with nullcontext() if lease.tag else _alone(zone, key), layout.room(zone):
        found = find(zone, key)
        if found is None:
            raise NotFound(f"the zone {zone} holds no version {key}")
        directory = layout.version_directory(zone, key)
        kept = found.replicas[:count]
        with (
            guard.thawed(directory, directory / layout.VERSION_FILE),
            durable.Staging(zone / layout.STAGING, lease) as staging,
        ):
            _discard(directory, {replica.index for replica in found.replicas}, staging)
            used = {replica.index for replica in kept}
            free = [index for index in range(count + len(used)) if index not in used]
            wanted = free[: count - len(kept)]
            made = _make(zone, sandbox, found.bases, staging.path, wanted)
            modes.give(staging.path, modes.group_of(directory))
            durable.sync_tree(staging.path)
            for replica in made:
                name = _name(replica.index)
                staging.give(name, directory / name)
            durable.sync_directory(directory)
            added = tuple(_moved(replica, staging.path, directory) for replica in made)
            changed = Found(found.record, kept + added, found.bases, found.sources)
            content = _content(changed, directory)
            durable.fill(staging.path / layout.VERSION_FILE, content, mode=0o400)
            modes.give(staging.path / layout.VERSION_FILE, modes.group_of(directory))
            staging.give(layout.VERSION_FILE, directory / layout.VERSION_FILE, over=True)
            durable.sync_directory(directory)
            _discard(directory, {replica.index for replica in changed.replicas}, staging)
    return changed.replicas


def remove(zone: Path, key: str, lease: Lease) -> None:
    """Take a version away: gone at once, then its files; nothing to do when it is absent."""
    directory = layout.version_directory(zone, key)
    if not layout.is_directory(directory):
        return  # also in a zone that nobody can write to
    with layout.room(zone), durable.Staging(zone / layout.STAGING, lease) as staging:
        guard.freeze(directory, on=False)
        try:
            with guard.names(directory.parent):
                staging.take(directory, "removed")
        except FileNotFoundError:
            return
        durable.sync_directory(directory.parent)


def _make(
    zone: Path,
    sandbox: Sandbox,
    disks: Mapping[int | None, str],
    directory: Path,
    indices: Sequence[int],
) -> tuple[Replica, ...]:
    """Replicas of these numbers in a private directory, their files read-only."""
    places = [directory / _name(index) for index in indices]
    for place in places:
        place.mkdir(mode=modes.DIRECTORY)
    made: list[list[ReplicaDisk]] = []
    for lun, digest in disks.items():
        base = children.find_base(zone, digest)
        backing = f"../../../{layout.BASES}/{digest}/"
        made.append(
            [children.digested(d) for d in children.make(sandbox, base, places, lun, backing)]
        )
        for disk in made[-1]:
            disk.path.chmod(0o400)
    return tuple(
        Replica(index, tuple(disk[position] for disk in made))
        for position, index in enumerate(indices)
    )


def _commit(zone: Path, staging: durable.Staging, version: Found, *, immutable: bool) -> None:
    """Give a staged version its name, unless another process has published it first."""
    _fill(staging, version)
    directory = layout.version_directory(zone, version.record.key)
    with (
        contextlib.suppress(FileExistsError),
        guard.names(directory.parent, immutable=immutable),
    ):
        staging.commit(directory)
    if immutable:
        guard.freeze(directory, on=True)


def _fill(staging: durable.Staging, version: Found) -> None:
    """Complete a staged version with its records."""
    nvram = version.record.nvram
    if nvram is not None:
        durable.fill(staging.path / layout.NVRAM, nvram)
    durable.fill(staging.path / layout.VERSION_FILE, _content(version, staging.path))
    for path in staging.path.rglob("*"):
        if path.is_file():
            path.chmod(0o400)


def _name(index: int) -> str:
    return f"replica-{index}"


def _moved(replica: Replica, old: Path, new: Path) -> Replica:
    return Replica(
        replica.index,
        tuple(replace(disk, path=new / disk.path.relative_to(old)) for disk in replica.disks),
    )


def _discard(directory: Path, stay: set[int], staging: durable.Staging) -> None:
    """Move the replicas away that the record does not list; they go with the staging."""
    names = {_name(index) for index in stay}
    for path in sorted(directory.glob("replica-*")):
        if path.name not in names:
            staging.take(path, f"gone-{path.name}-{path.stat().st_ino}")
    durable.sync_directory(directory)


@contextlib.contextmanager
def _alone(zone: Path, key: str) -> Iterator[None]:
    """One process at a time changes the replicas of a version."""
    try:
        fd = os.open(layout.version_directory(zone, key), os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        raise NotFound(f"the zone {zone} holds no version {key}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _os_first(item: tuple[int | None, str]) -> int:
    return -1 if item[0] is None else item[0]


def _same(
    zone: Path, record: VersionRecord, disks: Mapping[int | None, str]
) -> tuple[Replica, ...] | None:
    there = find(zone, record.key)
    if there is None:
        return None
    if dict(there.bases) != dict(disks):
        raise Conflict(
            f"the zone {zone} holds a version {record.key} with other disks",
            hint="versions are immutable: publish a new one",
        )
    return there.replicas


def _said_of(nvram: bytes | None) -> dict[str, str | None]:
    if nvram is None:
        return {"nvram": None}
    return {"nvram": layout.NVRAM, "nvram_digest": blake3(nvram).hexdigest()}


def _content(version: Found, directory: Path) -> bytes:
    replicas = [
        {
            "index": replica.index,
            "disks": [
                {
                    "lun": disk.lun,
                    "path": str(disk.path.relative_to(directory)),
                    "format": disk.format.value,
                    "method": disk.method,
                    "digest": disk.digest,
                    "virtual_size": disk.virtual_size,
                    **({"file_digest": disk.file_digest} if disk.file_digest else {}),
                }
                for disk in replica.disks
            ],
        }
        for replica in version.replicas
    ]
    return layout.encode(
        {
            "key": version.record.key,
            "document": dict(version.record.document),
            "bases": [{"lun": lun, "digest": digest} for lun, digest in version.bases.items()],
            "replicas": replicas,
            "sources": [str(path) for path in version.sources],
            **_said_of(version.record.nvram),
        }
    )
