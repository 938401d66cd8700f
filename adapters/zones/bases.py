"""Bases: the immutable content of one disk, raw or as a delta on another base."""

import contextlib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from adapters.filesystem import calls, durable
from adapters.filesystem.profile import ZoneProfile
from adapters.filesystem.sinks import RawSink
from adapters.process.sandbox import Sandbox
from adapters.zones import layout
from adapters.zones.opening import Opened, ZoneSink, open_delta
from pipeline.data.manifest import ManifestReader
from pipeline.errors import VerificationFailed
from pipeline.ports import BaseStaging, Chain, ImageFormat, Layer, Sink, StoredBase

# Each layer costs a file descriptor and caches; opening 50 of them takes five times as long as one.
# Eleven is a full snapshot and ten incremental ones, and what an overlay's header can name (qcow2
# gives a backing reference 1023 bytes, a layer takes 89).
MAX_DEPTH = 11


def find(zone: Path, digest: str) -> StoredBase | None:
    """The base of that name. Raises VerificationFailed if its record, or a parent, is broken."""
    return _find(zone, digest, MAX_DEPTH)


def _find(zone: Path, digest: str, depth: int) -> StoredBase | None:
    directory = layout.base_directory(zone, digest)
    record = _record(directory)
    if record is None:
        return None
    try:
        format = ImageFormat(record["format"])
        virtual_size, method = int(record["virtual_size"]), str(record["method"])
        parent = None if record["parent"] is None else str(record["parent"])
    except (KeyError, ValueError, TypeError) as error:
        raise layout.damaged(
            directory / layout.BASE_FILE, f"a property is wrong: {error}"
        ) from None
    chain: Chain = (Layer(directory / ("base" + layout.SUFFIXES[format]), format),)
    if format is ImageFormat.QCOW2:
        if depth == 1:
            raise layout.damaged(directory, f"it is more than {MAX_DEPTH} layers deep")
        below = None if parent is None else _find(zone, parent, depth - 1)
        if below is None:
            raise layout.damaged(directory, f"its parent {parent} is not there")
        chain += below.chain
    manifest = directory / layout.MANIFEST
    return StoredBase(digest, virtual_size, chain, manifest, method, parent)


def _record(directory: Path) -> dict[str, Any] | None:
    try:
        return layout.decode(directory / layout.BASE_FILE)
    except FileNotFoundError:
        if directory.exists():
            raise layout.damaged(directory, f"it has no {layout.BASE_FILE}") from None
        return None


def stage(
    zone: Path,
    sandbox: Sandbox,
    virtual_size: int,
    parent: StoredBase | None,
    *,
    profile: ZoneProfile,
    immutable: bool,
    release: Callable[[], None],
) -> "StagedBase":
    """Begin a base: a clone of the parent, a delta on it, or an empty raw file.

    `release` is called once when the staging ends, either way.
    """
    if parent is not None:
        # what is kept from the parent is decided by its manifest alone
        _verify_manifest(parent.manifest, parent.digest)
    staging = durable.Staging(zone / layout.STAGING)
    try:
        with layout.room(zone):
            if parent is not None and profile.reflink and len(parent.chain) == 1:
                path = staging.path / "base.raw"
                if calls.clone(parent.chain[0].path, path):
                    sink = RawSink(path, virtual_size, profile.writing)
                    opened = Opened(sink, ImageFormat.RAW, "reflink")
                    return StagedBase(
                        zone, staging, opened, virtual_size, parent, immutable, release
                    )
            if parent is not None and not profile.reflink and len(parent.chain) < MAX_DEPTH:
                opened = open_delta(sandbox, staging.path / "base.qcow2", virtual_size, parent)
                return StagedBase(zone, staging, opened, virtual_size, parent, immutable, release)
            sink = RawSink(staging.path / "base.raw", virtual_size, profile.writing)
            opened = Opened(sink, ImageFormat.RAW, "copy")
            return StagedBase(zone, staging, opened, virtual_size, None, immutable, release)
    except BaseException:
        staging.close()
        raise


def delta_parent(zone: Path, parents: Iterable[str]) -> StoredBase | None:
    """What `stage` would make a delta of, where files can't be cloned: the first that is here."""
    found = (find(zone, digest) for digest in parents)
    parent = next((base for base in found if base is not None), None)
    return parent if parent is not None and len(parent.chain) < MAX_DEPTH else None


def clone_base_from(zone: Path, base: StoredBase, *, immutable: bool) -> StoredBase | None:
    """Make a base of another zone one of this: its manifest, and its file, as a clone or, of a
    delta, as a copy. None, with nothing left behind, where file systems can't clone, and where this
    zone has not the delta's parent under the name that its header has for it."""
    parent = None
    if base.method == "delta":
        parent = delta_parent(zone, [base.parent] if base.parent else [])
        if parent is None or parent.chain[0].path.name != base.chain[1].path.name:
            return None
    top = base.chain[0]
    staging = durable.Staging(zone / layout.STAGING)
    try:
        path = staging.path / top.path.name
        if parent is not None:
            shutil.copyfile(top.path, path)
        elif not calls.clone(top.path, path):
            staging.close()
            return None
        sink = RawSink(path, path.stat().st_size)
        opened = Opened(sink, top.format, "reflink" if parent is None else "delta")
    except BaseException:
        staging.close()
        raise
    staged = StagedBase(
        zone, staging, opened, base.virtual_size, parent, immutable, release=lambda: None
    )
    return staged.commit(base.digest, base.manifest)


def _verify_manifest(path: Path, digest: str) -> int:
    """The virtual size of the disk that a whole, unaltered manifest of this root describes."""
    with path.open("rb") as file:
        reader = ManifestReader(file, name=str(path))
        reader.verify(digest)
        return reader.virtual_size


class StagedBase:
    """A base being written; see `BaseStaging`. A qemu-nbd server may be behind the sink: it lives
    as long as the thread that began the staging."""

    def __init__(
        self,
        zone: Path,
        staging: durable.Staging,
        opened: Opened,
        virtual_size: int,
        parent: StoredBase | None,
        immutable: bool,
        release: Callable[[], None],
    ) -> None:
        self.sink: Sink = ZoneSink(zone, opened.sink)
        self.parent = parent
        self._zone = zone
        self._staging = staging
        self._opened: Opened | None = opened
        self._virtual_size = virtual_size
        self._immutable = immutable
        self._release: Callable[[], None] | None = release

    def commit(self, digest: str, manifest: Path) -> StoredBase:
        opened, self._opened = self._opened, None
        if opened is None:
            raise ValueError("this base was committed or aborted before")
        directory = layout.base_directory(self._zone, digest)
        try:
            with layout.room(self._zone):
                self._close(opened)
                if find(self._zone, digest) is None:
                    self._write_records(opened, digest, manifest)
                    # another process may have stored the same content first
                    with contextlib.suppress(FileExistsError):
                        self._staging.commit(directory)
                if self._immutable:
                    freeze(directory, on=True)
        finally:
            self.abort()
        stored = find(self._zone, digest)
        if stored is None:
            raise VerificationFailed(f"the base {digest} vanished from the zone {self._zone}")
        return stored

    def _close(self, opened: Opened) -> None:
        try:
            opened.finish()
        except BaseException:
            opened.drop()
            raise

    def _write_records(self, opened: Opened, digest: str, manifest: Path) -> None:
        path = self._staging.path
        shutil.copyfile(manifest, path / layout.MANIFEST)
        described = _verify_manifest(path / layout.MANIFEST, digest)
        if described != self._virtual_size:
            raise VerificationFailed(
                f"{manifest} describes a disk of {described} bytes, "
                f"the base has {self._virtual_size}"
            )
        record = {
            "digest": digest,
            "virtual_size": self._virtual_size,
            "format": opened.format.value,
            "method": opened.method,
            "parent": self.parent.digest if self.parent else None,
        }
        durable.fill(path / layout.BASE_FILE, layout.encode(record))
        for file_path in path.iterdir():
            file_path.chmod(0o444)

    def abort(self) -> None:
        opened, self._opened = self._opened, None
        try:
            if opened is not None:
                opened.drop()
        finally:
            self._staging.close()
            release, self._release = self._release, None
            if release is not None:
                release()


def freeze(directory: Path, *, on: bool) -> None:
    """Make the files of a base immutable where rights allow, or lift that."""
    for path in sorted(directory.iterdir()):
        calls.set_immutable(path, on=on)


def needed(zone: Path, keep: Iterable[str]) -> set[str]:
    """These bases and those that they are deltas of."""
    found: set[str] = set()
    for digest in keep:
        base = find(zone, digest)
        while base is not None and base.digest not in found:
            found.add(base.digest)
            base = find(zone, base.parent) if base.method == "delta" and base.parent else None
    return found


_: type[BaseStaging] = StagedBase
