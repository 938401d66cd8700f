"""Versions: copy-on-write replicas of bases, and disks that are deployed from them."""

import contextlib
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters import durable, filesystem, qemu
from adapters.sandbox import Sandbox
from adapters.zones import bases, layout
from pipeline.errors import Conflict, NotFound, VerificationFailed
from pipeline.ports import ImageFormat, Replica, ReplicaDisk, StoredBase, VersionRecord


def find(zone: Path, key: str) -> tuple[VersionRecord, tuple[Replica, ...]] | None:
    """A version and its replicas. Raises VerificationFailed if its record is broken."""
    directory = layout.version_directory(zone, key)
    path = directory / layout.VERSION_FILE
    try:
        content = layout.decode(path)
    except FileNotFoundError:
        return None
    try:
        replicas = tuple(_replica(directory, item) for item in content["replicas"])
        return VersionRecord(key, dict(content["document"])), replicas
    except (KeyError, ValueError, TypeError) as error:
        raise layout.damaged(path, f"a property is wrong: {error}") from None


def _replica(directory: Path, item: Mapping[str, Any]) -> Replica:
    return Replica(
        int(item["index"]),
        tuple(
            ReplicaDisk(
                lun=disk["lun"],
                path=directory / disk["path"],
                format=ImageFormat(disk["format"]),
                method=disk["method"],
                digest=disk["digest"],
                virtual_size=int(disk["virtual_size"]),
            )
            for disk in item["disks"]
        ),
    )


def publish(
    zone: Path,
    sandbox: Sandbox,
    record: VersionRecord,
    disks: Mapping[int | None, str],
    count: int,
) -> tuple[Replica, ...]:
    """Make a version's replicas, all or none; one that is there is returned as it is."""
    directory = layout.version_directory(zone, record.key)
    there = _same(zone, record, disks)
    if there is not None:
        return there
    found = {lun: _base(zone, digest) for lun, digest in sorted(disks.items(), key=_os_first)}
    with layout.room(zone), durable.Staging(zone / layout.STAGING) as staging:
        replicas = []
        for index in range(count):
            place = staging.path / f"replica-{index}"
            place.mkdir()
            made = tuple(
                _child(sandbox, base, place, lun, f"../../../{layout.BASES}/{base.digest}/")
                for lun, base in found.items()
            )
            replicas.append(Replica(index, made))
        content = _content(record, replicas, staging.path)
        durable.fill(staging.path / layout.VERSION_FILE, content)
        for path in staging.path.rglob("*"):
            if path.is_file():
                path.chmod(0o444)
        # when another process published it first, its replicas are compared below
        with contextlib.suppress(FileExistsError):
            staging.commit(directory)
    there = _same(zone, record, disks)
    if there is None:
        raise VerificationFailed(f"the version {record.key} vanished from the zone {zone}")
    return there


def _os_first(item: tuple[int | None, str]) -> int:
    return -1 if item[0] is None else item[0]


def _base(zone: Path, digest: str) -> StoredBase:
    base = bases.find(zone, digest)
    if base is None:
        raise NotFound(
            f"the zone {zone} holds no base {digest}", hint="replicate the version to it first"
        )
    return base


def _same(
    zone: Path, record: VersionRecord, disks: Mapping[int | None, str]
) -> tuple[Replica, ...] | None:
    there = find(zone, record.key)
    if there is None:
        return None
    for replica in there[1]:
        if {disk.lun: disk.digest for disk in replica.disks} != dict(disks):
            raise Conflict(
                f"the zone {zone} holds a version {record.key} with other disks",
                hint="versions are immutable: publish a new one",
            )
    return there[1]


def _content(record: VersionRecord, replicas: Sequence[Replica], directory: Path) -> bytes:
    items = [
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
                }
                for disk in replica.disks
            ],
        }
        for replica in replicas
    ]
    return layout.encode({"key": record.key, "document": dict(record.document), "replicas": items})


def _child(
    sandbox: Sandbox, base: StoredBase, directory: Path, lun: int | None, backing: str
) -> ReplicaDisk:
    """One copy-on-write child of a base: a clone where both files can share blocks, else an
    overlay that finds the base by `backing` + its file name."""
    name = layout.disk_name(lun)
    top = base.chain[0]
    if top.format is ImageFormat.RAW:
        path = directory / f"{name}.raw"
        if filesystem.clone(top.path, path):
            if path.stat().st_size != base.virtual_size:
                raise layout.damaged(top.path, f"it has {path.stat().st_size} bytes")
            return ReplicaDisk(
                lun, path, ImageFormat.RAW, "reflink", base.digest, base.virtual_size
            )
        path.unlink()
    path = directory / f"{name}.qcow2"
    qemu.create_qcow2(
        sandbox,
        path,
        base.virtual_size,
        backing=backing + top.path.name,
        backing_format=qemu.DRIVERS[top.format],
    )
    return ReplicaDisk(lun, path, ImageFormat.QCOW2, "overlay", base.digest, base.virtual_size)


def deploy(zone: Path, sandbox: Sandbox, replica: Replica, target: Path) -> tuple[ReplicaDisk, ...]:
    """Disks for a new VM in `target`. They lean on the bases, not on the replica: removing the
    version leaves them working."""
    target.mkdir(parents=True, exist_ok=True)
    target = target.resolve()
    private = target / f".galleria-{secrets.token_hex(8)}"
    placed: list[Path] = []
    try:
        private.mkdir()
        made = [
            _child(sandbox, base, private, disk.lun, f"{base.chain[0].path.parent}/")
            for disk in replica.disks
            for base in [_base(zone, disk.digest)]
        ]
        durable.sync_tree(private)
        disks = []
        for disk in made:
            path = target / disk.path.name
            try:
                durable.rename_new(disk.path, path)
            except FileExistsError:
                raise Conflict(
                    f"{path} exists already", hint="deploy into a directory of its own"
                ) from None
            placed.append(path)
            disks.append(
                ReplicaDisk(
                    disk.lun, path, disk.format, disk.method, disk.digest, disk.virtual_size
                )
            )
        durable.sync_directory(target)
    except BaseException:
        for path in placed:
            path.unlink(missing_ok=True)
        raise
    finally:
        durable.remove_tree(private)
    return tuple(disks)


def remove(zone: Path, key: str) -> None:
    """Take a version away: gone at once, then its files; nothing to do when it is absent."""
    directory = layout.version_directory(zone, key)
    with durable.Staging(zone / layout.STAGING) as staging:
        try:
            durable.rename_new(directory, staging.path / "removed")
        except FileNotFoundError:
            return
        durable.sync_directory(directory.parent)
