"""Bases: the immutable content of one disk, raw or as a delta on another base."""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters.filesystem import calls, durable, rawfile
from adapters.filesystem.profile import ZoneProfile
from adapters.filesystem.sinks import RawSink
from adapters.formats import Window, qcow2
from adapters.formats.raw import lookalikes
from adapters.process.sandbox import Sandbox
from adapters.zones import guard, layout, schema
from adapters.zones.opening import Opened, ZoneSink, open_delta
from pipeline.data.manifest import ManifestReader
from pipeline.errors import UnsafeImage, VerificationFailed
from pipeline.model.clock import utc_now
from pipeline.ports import BaseStaging, Chain, ImageFormat, Layer, Sink, StoredBase
from pipeline.ports.runs import Lease

# Each layer costs a file descriptor and caches; opening 50 of them takes five times as long as one.
# Eleven is a full snapshot and ten incremental ones, and what an overlay's header can name (qcow2
# gives a backing reference 1023 bytes, a layer takes 89).
MAX_DEPTH = 11

_DELTA_OF = re.compile(r"\.\./([0-9a-f]{64})/base\.[a-z0-9]+")


def find(zone: Path, digest: str) -> StoredBase | None:
    """The base of that name. Raises VerificationFailed if its record, or a parent, is broken."""
    return _find(zone, digest, MAX_DEPTH)


def _find(zone: Path, digest: str, depth: int) -> StoredBase | None:
    directory = layout.base_directory(zone, digest)
    record = _record(directory)
    if record is None:
        return None
    try:
        if (recorded := schema.digest(record)) != digest:
            raise ValueError(f"it is the record of {recorded}")
        format = schema.disk_format(record)
        virtual_size = schema.number(record, "virtual_size")
        method = schema.text(record, "method", "copy|reflink|delta")
        parent = None if record["parent"] is None else schema.digest(record, "parent")
    except (KeyError, ValueError, TypeError) as error:
        raise layout.damaged(
            directory / layout.BASE_FILE, f"a property is wrong: {error}"
        ) from None
    path, manifest = directory / ("base" + layout.SUFFIXES[format]), directory / layout.MANIFEST
    for file in (path, manifest):
        layout.check_file(file)
        if not file.exists():
            raise layout.damaged(file, "it is not there")
    if format is ImageFormat.RAW and (length := path.stat().st_size) != virtual_size:
        raise layout.damaged(path, f"it has {length} bytes instead of {virtual_size}")
    chain: Chain = (Layer(path, format),)
    if format is ImageFormat.QCOW2 and (method == "delta" or parent is not None):
        if depth == 1:
            raise layout.damaged(directory, f"it is more than {MAX_DEPTH} layers deep")
        below = None if parent is None else _find(zone, parent, depth - 1)
        if below is None:
            raise layout.damaged(directory, f"its parent {parent} is not there")
        chain += below.chain
    return StoredBase(digest, virtual_size, chain, manifest, method, parent)


def _record(directory: Path) -> dict[str, Any] | None:
    if not layout.is_directory(directory):
        if os.path.lexists(directory):
            raise layout.damaged(directory, "it is not a directory")
        return None
    try:
        return layout.decode(directory / layout.BASE_FILE)
    except FileNotFoundError:
        raise layout.damaged(directory, f"it has no {layout.BASE_FILE}") from None


def first_usable(zone: Path, digests: Iterable[str]) -> StoredBase | None:
    """The first of these bases that is here, whole by its record, and not known to be bad."""
    for digest in digests:
        with contextlib.suppress(VerificationFailed):
            base = find(zone, digest)
            if base is not None and not changes(base):
                return base
    return None


def problem(base: StoredBase, *, cached: bool) -> str:
    """Why a file of a base, or of what it is a delta of, is not what was written, beside its
    content; empty when nothing shows it. A raw file is its content."""
    for layer in base.chain:
        if layer.format is ImageFormat.RAW:
            continue
        wanted = layout.decode(layer.path.parent / layout.BASE_FILE).get("file_digest")
        if wanted is not None and layout.file_digest(layer.path, cached=cached) != wanted:
            return f"{layer.path}: its file has changed"
    return ""


# --- whether a base is as it was ----------------------------------------------------------------


def changes(base: StoredBase) -> str | None:
    """What of the files of a base, and of those below it, is not as it was when they were last
    known to be sound; empty when all is. None when nothing is known of one of them, which an
    earlier galleria made."""
    known = True
    for layer in base.chain:
        try:
            record = layout.decode(layer.path.parent / layout.FINGERPRINT)
        except FileNotFoundError:
            known = False
            continue
        except VerificationFailed as error:
            return error.message
        if record.get("problem"):
            return f"{layer.path}: {str(record['problem'])[: schema.TEXT_LIMIT]}"
        now = _fingerprint(layer.path)
        different = [name.replace("_", " ") for name in now if record.get(name) != now[name]]
        if different:
            return f"{layer.path}: not as it was: its {', '.join(different)}"
    return "" if known else None


def last_read(base: StoredBase) -> datetime | None:
    """When all of a base, and of those below it, was last read from the medium; None: never."""
    times = [_time_of_reading(layer.path.parent) for layer in base.chain]
    known = [moment for moment in times if moment is not None]
    return min(known) if len(known) == len(times) else None


def _time_of_reading(directory: Path) -> datetime | None:
    with contextlib.suppress(OSError, VerificationFailed, ValueError, TypeError):
        record = layout.decode(directory / layout.FINGERPRINT)
        return datetime.fromisoformat(record.get("time_of_reading", "")).astimezone(UTC)
    return None


def remember(base: StoredBase, problem: str = "", *, read: bool = False) -> None:
    """Note that a base, and those below it, are sound as they are now; or of the base itself, what
    is wrong with it. `read`: it was read from its medium. Who may not write to the zone does not:
    the next one asks again."""
    now = utc_now()
    for layer in base.chain[:1] if problem else base.chain:
        moment = now if read else _time_of_reading(layer.path.parent)
        record = {
            **_fingerprint(layer.path),
            "time_of_reading": "" if moment is None else moment.isoformat(),
            "problem": problem,
        }
        with contextlib.suppress(OSError):
            path = layer.path.parent / layout.FINGERPRINT
            durable.write_file(path, layout.encode(record), mode=0o400, overwrite=True)


def _fingerprint(path: Path) -> dict[str, object]:
    """What changes with a file, whatever is done to it, without a look at its content."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        facts = os.fstat(fd)
        return {
            "length": facts.st_size,
            "time_of_modification": facts.st_mtime_ns,
            "time_of_change": facts.st_ctime_ns,
            "inode": facts.st_ino,
            "immutability": calls.is_immutable(fd),
        }
    finally:
        os.close(fd)


# --- making bases -------------------------------------------------------------------------------


def stage(
    zone: Path,
    sandbox: Sandbox,
    virtual_size: int,
    parents: Sequence[str],
    *,
    profile: ZoneProfile,
    immutable: bool,
    release: Callable[[], None],
    lease: Lease,
) -> "StagedBase":
    """Begin a base: a clone of the first of `parents` that is here and sound as far as is known, a
    delta on it, or an empty raw file.

    `release` is called once when the staging ends, either way.
    """
    parent = first_usable(zone, parents)
    # what is kept from the parent is decided by its manifest alone
    if parent is not None and not _whole_manifest(parent):
        parent = None
    staging = durable.Staging(zone / layout.STAGING, lease)
    try:
        with layout.room(zone):
            if parent is not None and profile.reflink and _is_plain(parent):
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


def _is_plain(base: StoredBase) -> bool:
    """Whether a base is one raw file, of which a clone can be a base's file too."""
    return [layer.format for layer in base.chain] == [ImageFormat.RAW]


def restage(
    zone: Path,
    sandbox: Sandbox,
    digest: str,
    virtual_size: int,
    parents: Sequence[str],
    *,
    profile: ZoneProfile,
    immutable: bool,
    release: Callable[[], None],
    lease: Lease,
) -> "StagedBase":
    """Begin a base anew that is bad. What it is called, overlays know: a qcow2 becomes a qcow2
    again, of its parent where that is sound, else with all that is in it; a raw file a raw one,
    which is a clone of a sound parent where files can be cloned."""
    format = _format_of(layout.base_directory(zone, digest))
    if format is None or (format is ImageFormat.RAW and profile.reflink):
        return stage(
            zone,
            sandbox,
            virtual_size,
            [item for item in parents if item != digest],
            profile=profile,
            immutable=immutable,
            release=release,
            lease=lease,
        )
    parent = None
    staging = durable.Staging(zone / layout.STAGING, lease)
    try:
        with layout.room(zone):
            if format is ImageFormat.QCOW2:
                own = parent_of(zone, digest)
                parent = delta_parent(zone, [own] if own else [])
                if parent is not None and not _whole_manifest(parent):
                    parent = None
                path = staging.path / "base.qcow2"
                opened = open_delta(sandbox, path, virtual_size, parent)
            else:
                sink = RawSink(staging.path / "base.raw", virtual_size, profile.writing)
                opened = Opened(sink, ImageFormat.RAW, "copy")
            return StagedBase(zone, staging, opened, virtual_size, parent, immutable, release)
    except BaseException:
        staging.close()
        raise


def _format_of(directory: Path) -> ImageFormat | None:
    """What the file of a base is or was, by its name, else by its record; None: nobody knows."""
    for format, suffix in layout.SUFFIXES.items():
        if os.path.lexists(directory / f"base{suffix}"):
            return format
    with contextlib.suppress(OSError, VerificationFailed, ValueError):
        record = _record(directory)
        return None if record is None else schema.disk_format(record)
    return None


def remains(zone: Path, digest: str) -> Chain | None:
    """The raw file of a base whose record or manifest can't be used."""
    path = layout.base_directory(zone, digest) / f"base{layout.SUFFIXES[ImageFormat.RAW]}"
    with contextlib.suppress(OSError, VerificationFailed):
        layout.check_file(path)
        if path.exists():
            return (Layer(path, ImageFormat.RAW),)
    return None


def parent_of(zone: Path, digest: str) -> str | None:
    """The base that one was started from: as its record says, else the header of its file."""
    directory = layout.base_directory(zone, digest)
    with contextlib.suppress(OSError, VerificationFailed, ValueError, KeyError):
        record = _record(directory)
        if record is not None:
            return None if record["parent"] is None else schema.digest(record, "parent")
    with contextlib.suppress(OSError, VerificationFailed):
        path = directory / f"base{layout.SUFFIXES[ImageFormat.QCOW2]}"
        layout.check_file(path)
        with path.open("rb") as file:
            named = _DELTA_OF.fullmatch(qcow2.backing_name(file))
        return named[1] if named else None
    return None


def delta_parent(zone: Path, parents: Iterable[str]) -> StoredBase | None:
    """What `stage` would make a delta of, where files can't be cloned."""
    parent = first_usable(zone, parents)
    return parent if parent is not None and len(parent.chain) < MAX_DEPTH else None


def clone_base_from(
    zone: Path, base: StoredBase, *, immutable: bool, replace: bool, lease: Lease
) -> StoredBase | None:
    """Make a base of another zone one of this: its manifest, and its file, as a clone or, of a
    delta, as a copy. None, with nothing left behind, where file systems can't clone, and where this
    zone has not the delta's parent under the name that its header has for it."""
    parent = None
    if base.method == "delta":
        parent = delta_parent(zone, [base.parent] if base.parent else [])
        if parent is None or parent.chain[0].path.name != base.chain[1].path.name:
            return None
    top = base.chain[0]
    staging = durable.Staging(zone / layout.STAGING, lease)
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
    return staged.commit(base.digest, base.manifest, replace=replace)


def _whole_manifest(base: StoredBase) -> bool:
    try:
        return _verify_manifest(base.manifest, base.digest) == base.virtual_size
    except VerificationFailed:
        return False


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

    def commit(self, digest: str, manifest: Path, *, replace: bool = False) -> StoredBase:
        opened, self._opened = self._opened, None
        if opened is None:
            raise ValueError("this base was committed or aborted before")
        directory = layout.base_directory(self._zone, digest)
        try:
            with layout.room(self._zone):
                self._close(opened)
                damage = self._damage(digest)
                if damage is not None or (replace and os.path.lexists(directory)):
                    self._write_records(opened, digest, manifest)
                    self._replace(directory, opened, damage)
                elif not layout.is_directory(directory):
                    self._check_unlike(opened)
                    self._write_records(opened, digest, manifest)
                    # another process may have stored the same content first
                    with contextlib.suppress(FileExistsError), self._names():
                        self._staging.commit(directory)
                if self._immutable:
                    freeze(directory, on=True)
        finally:
            self.abort()
        stored = find(self._zone, digest)
        if stored is None:
            raise VerificationFailed(f"the base {digest} vanished from the zone {self._zone}")
        if changes(stored) is None:
            remember(stored)
        return stored

    def _damage(self, digest: str) -> VerificationFailed | None:
        """What is wrong with a base that is there already, by what its files say at once."""
        try:
            base = find(self._zone, digest)
        except VerificationFailed as error:
            return error
        if base is None or _whole_manifest(base):
            return None
        return layout.damaged(base.manifest, "it is not what was written")

    def _replace(self, directory: Path, opened: Opened, damage: VerificationFailed | None) -> None:
        """Let the new base have the name of a bad one, which goes to quarantine. Overlays find the
        new one only if it has the old one's file name and format."""
        name = "base" + layout.SUFFIXES[opened.format]
        others = [path.name for path in directory.glob("base.*") if path.suffix != ".json"]
        if any(other != name for other in others):
            raise damage or layout.damaged(directory, f"it can't be replaced by a {name}")
        if layout.is_directory(directory):
            freeze(directory, on=False)
        token = self._staging.path.name
        with self._names():
            self._staging.commit_over(
                directory, self._zone / layout.QUARANTINE / f"{directory.name}-{token}"
            )

    def _names(self) -> contextlib.AbstractContextManager[None]:
        return guard.names(self._zone / layout.BASES, immutable=self._immutable)

    def _check_unlike(self, opened: Opened) -> None:
        """Refuse a raw file whose content begins or ends as another format's does: tools that look
        for themselves would follow what the guest's bytes name."""
        if opened.format is not ImageFormat.RAW:
            return
        fd = rawfile.open_readonly(self._staging.path / "base.raw")
        try:
            found = lookalikes(Window(fd))
        finally:
            os.close(fd)
        if found:
            raise UnsafeImage(
                f"what is on the disk looks like {found[0]}: other programs would take its raw "
                "base for one",
                hint="it is an image in an image: unpack the inner one, and publish that",
            )

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
        if opened.format is ImageFormat.QCOW2:  # its tables are in no manifest
            name = f"base{layout.SUFFIXES[opened.format]}"
            record["file_digest"] = layout.file_digest(path / name)
        durable.fill(path / layout.BASE_FILE, layout.encode(record))
        for file_path in path.iterdir():
            file_path.chmod(0o400)

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
    """Make the files of a base immutable where rights allow, or lift that; but for what is noted of
    it."""
    guard.freeze(directory, on=on, but=layout.FINGERPRINT)


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
