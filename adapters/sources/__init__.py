"""Every kind of source, opened (the `Sources` port): one module a kind."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.filesystem.identity import disk_identity, file_identity
from adapters.process.sandbox import Sandbox
from adapters.sources import devices, libvirt, machine_archives, unpacking, wrapped
from adapters.sources.archive import MEMBERS
from adapters.sources.compression import head_of
from adapters.sources.domains import Machine
from adapters.sources.own import OwnPlaces
from adapters.sources.parts import Described, files_of
from pipeline.data.text import printable
from pipeline.errors import GalleriaError, InvalidParameter, NotFound, UnsafeImage
from pipeline.model.disks import disk_name
from pipeline.model.sources import (
    AnySource,
    ArchiveForm,
    ArchiveSource,
    Backing,
    CatalogBox,
    DiskSource,
    QemuSource,
    UrlSource,
    VmSource,
    public_url,
)
from pipeline.ports import ImageFormat, Layer, Pins, Progress
from pipeline.ports.machines import MachineFacts
from pipeline.ports.sources import Sources, Supply

if TYPE_CHECKING:
    from adapters.sources.download import Downloads


class HostSources:
    """Sources that this host can reach. What is copied out of a file is held still meanwhile.
    `downloads` is only asked for when there is a URL: few jobs need an HTTP client. `progress` is
    told the chains that a machine's disks turned out to be, before anything of them is read."""

    def __init__(
        self,
        pins: Pins,
        downloads: Callable[[], "Downloads"],
        libvirt_uri: str,
        sandbox: Sandbox,
        progress: Progress,
        own: OwnPlaces = OwnPlaces(),  # noqa: B008 - it is frozen
    ) -> None:
        self._pins = pins
        self._downloads = downloads
        self._libvirt_uri = libvirt_uri
        self._sandbox = sandbox
        self._own = own
        self._progress = progress
        self._nonce = os.urandom(16).hex()  # no capture has the content of an earlier one
        self._catalogs: dict[CatalogBox, UrlSource] = {}

    def identity(self, source: AnySource) -> tuple[object, ...]:
        match source:
            case DiskSource():
                return (*disk_identity(source), *_parts_identity(source))
            case UrlSource():
                return ("url", source.lun, source.url, source.sha256)
            case ArchiveSource(remote=UrlSource() | CatalogBox() as remote):
                return (source.form.value, *self.identity(self._located(remote)))
            case ArchiveSource():
                chosen = (source.machine, source.configuration)
                files = _files(source)
                if isinstance(files, Path):
                    return (source.form.value, *chosen, *file_identity(files))
                facts = ((name, *file_identity(path)) for name, path in files.items())
                return (source.form.value, *chosen, *facts)
            case VmSource():
                machine = self._machine(source)
                if _is_running(machine, source):
                    return ("vm", repr(machine.description), machine.name, self._nonce)
                disks = tuple(disk_identity(disk) for disk in _over(machine.disks, source))
                variables = machine.nvram
                if variables is not None and variables.exists():
                    disks += (file_identity(variables),)
                return ("vm", repr(machine.description), *disks)
            case _:
                raise unknown(source)

    def machine_facts(self, source: QemuSource | VmSource) -> MachineFacts | None:
        if not isinstance(source, VmSource):
            raise unknown(source)
        machine = self._machine(source)
        if not _is_running(machine, source):
            return None
        from adapters.sources.libvirt_captures import facts

        return facts(machine, self._libvirt_uri)

    @contextmanager
    def open(self, source: AnySource, work: Path) -> Iterator[Supply]:
        match source:
            case DiskSource():
                with self.unwrapped(source, work) as disk:
                    yield Supply((disk,), lasting=disk is source)
            case UrlSource():
                with self._downloads().open(source) as path:
                    found = DiskSource(source.lun, path, name=public_url(source.url))
                    with self.unwrapped(found, work) as disk:
                        yield Supply((disk,), lasting=False)
            case ArchiveSource(remote=None):
                with self._unpacked(source, work) as supply:
                    yield supply
            case ArchiveSource(remote=UrlSource() | CatalogBox() as remote):
                with (
                    self._downloads().open(self._located(remote)) as path,
                    self._unpacked(replace(source, path=path), work) as supply,
                ):
                    yield supply
            case VmSource():
                machine = self._machine(source)
                nvram = self._nvram(machine.nvram, work) if machine.nvram else None
                with ExitStack() as stack:
                    named = _over(machine.disks, source)
                    self._tell(named)
                    if _is_running(machine, source):
                        disks = stack.enter_context(self._captured(machine, work))
                    else:
                        held = (self.unwrapped(disk, work) for disk in named)
                        disks = tuple(map(stack.enter_context, held))
                    lasting = disks == named
                    description = replace(machine.description, nvram=nvram)
                    yield Supply(disks, description, lasting=lasting)
            case _:
                raise unknown(source)

    def _machine(self, source: VmSource) -> Machine:
        return libvirt.read_machine(source, self._libvirt_uri, self._sandbox)

    def _captured(
        self, machine: Machine, work: Path
    ) -> AbstractContextManager[tuple[DiskSource, ...]]:
        from adapters.sources.libvirt_captures import captured

        for disk in machine.disks:
            self._own.check(disk.path, (layer.path for layer in disk.backing))
        return captured(machine, self._libvirt_uri, work, self._progress)

    def _located(self, remote: UrlSource | CatalogBox) -> UrlSource:
        """The box's own URL. What a catalog answered holds for all that is asked of it here: the
        box that is read is the one that was told of."""
        if isinstance(remote, UrlSource):
            return remote
        if remote not in self._catalogs:
            from adapters.sources import box_catalogs

            content = self._downloads().document(remote.url)
            self._catalogs[remote] = box_catalogs.choose(content, remote)
        return self._catalogs[remote]

    def _tell(self, disks: Iterable[DiskSource]) -> None:
        for disk in disks:
            if disk.backing:
                layers = " over ".join(printable(str(layer.path)) for layer in disk.layers)
                self._progress.note(f"{disk_name(disk.lun)}: {layers}")

    @contextmanager
    def unwrapped(self, source: DiskSource, work: Path) -> Iterator[DiskSource]:
        self._own.check(source.path, (layer.path for layer in source.backing))
        if source.path.is_block_device():
            make = self._copied
        elif not source.path.is_file():  # inspection says what it is
            make = None
        else:
            kind = wrapped.wrapping_of(head_of(source.path))
            make = self._joined if kind == "parts" else self._unwrapped if kind else None
        if make is None:
            yield source
            return
        into = unpacking.private_directory(work)
        try:
            yield make(source, into)
        finally:
            unpacking.discard(into)

    def _copied(self, source: DiskSource, into: Path) -> DiskSource:
        return replace(source, path=devices.copy(source.path, into), name=source.shown)

    def _unwrapped(self, source: DiskSource, into: Path) -> DiskSource:
        with self._pins.pin([_pinnable(source.path)], into) as pin:
            held = pin.chains[0][0].opened
            path, shown = wrapped.unwrap(held, source.shown, into, self._sandbox)
            pin.verify()
        return replace(source, path=path, name=shown)

    def _joined(self, source: DiskSource, into: Path) -> DiskSource:
        """A VMDK in parts, as a raw disk."""
        if source.internal_snapshot is not None:
            raise InvalidParameter(f"{source.shown} is a VMDK in parts: it has no snapshots inside")
        described = _described(source)
        files = files_of(described)
        for path in files:
            self._own.check(path)
        with self._pins.pin([_pinnable(path) for path in files], into) as pin:
            held = {path: chain[0].opened for path, chain in zip(files, pin.chains, strict=True)}
            path = wrapped.put_together(described, held, into)
            pin.verify()
        return replace(source, path=path, name=source.shown, declared=ImageFormat.RAW, backing=())

    @contextmanager
    def _unpacked(self, source: ArchiveSource, work: Path) -> Iterator[Supply]:
        files = _files(source)
        paths = [files] if isinstance(files, Path) else list(files.values())
        for path in paths:
            self._own.check(path)
        into = unpacking.private_directory(work)
        try:
            with self._pins.pin([_pinnable(path) for path in paths], into) as pin:
                opened = [chain[0].opened for chain in pin.chains]
                held: Path | Mapping[str, Path] = opened[0]
                if not isinstance(files, Path):
                    held = dict(zip(files, opened, strict=True))
                supply = machine_archives.open_archive(source, held, into, self._sandbox)
                pin.verify()
            yield supply
        finally:
            unpacking.discard(into)

    def _nvram(self, path: Path, work: Path) -> bytes | None:
        """The variables of a machine's firmware; a machine that never ran has none."""
        self._own.check(path)
        if not path.exists():
            return None
        if path.stat().st_size > libvirt.NVRAM_LIMIT:
            raise InvalidParameter(f"the NVRAM {str(path)!a} is larger than 64 MiB")
        with self._pins.pin([_pinnable(path)], work) as pin:
            content = pin.chains[0][0].opened.read_bytes()
            pin.verify()
        return content


def _is_running(machine: Machine, source: VmSource) -> bool:
    """Whether libvirt runs it. Of one that a file describes, the locks of its disks tell."""
    return machine.live and not Path(source.name).is_file()


def _over(disks: Sequence[DiskSource], source: VmSource) -> tuple[DiskSource, ...]:
    """A machine's disks, over what the user says lies below them: the description of a machine
    that does not run has no chains."""
    below = dict(source.backing)
    if strange := set(below) - {disk.lun for disk in disks}:
        raise InvalidParameter(
            f"the machine {source.name} has no disk at LUN {max(strange, key=str)}"
        )
    return tuple(
        replace(disk, backing=tuple(map(Backing, below[disk.lun]))) if disk.lun in below else disk
        for disk in disks
    )


def _files(source: ArchiveSource) -> Path | Mapping[str, Path]:
    """The archive, or the files of the directory that it was unpacked to, by their names in it."""
    if source.form is not ArchiveForm.BOX or not source.path.is_dir():
        return source.path
    entries = list(islice(source.path.rglob("*"), MEMBERS + 1))
    if len(entries) > MEMBERS:
        raise UnsafeImage(f"{str(source.path)!a} has more than {MEMBERS} entries: it is no box")
    found = {}
    for path in sorted(entries):
        if path.is_symlink():
            raise UnsafeImage(f"{str(path)!a} is a link: a box holds files alone")
        if path.is_file():
            found[path.relative_to(source.path).as_posix()] = path
    if not found:
        raise NotFound(f"there is no box in {source.path}")
    return found


def _pinnable(path: Path) -> tuple[Layer]:
    return (Layer(path, ImageFormat.RAW),)


def _described(source: DiskSource) -> Sequence[Described]:
    layers = [(layer.path, str(layer.path)) for layer in source.layers]
    return wrapped.described(layers, source.extents_from)


def _parts_identity(source: DiskSource) -> tuple[object, ...]:
    """Of the files that hold the content where the named one is only a descriptor."""
    path = source.path
    if not path.is_file() or wrapped.wrapping_of(head_of(path)) != "parts":
        return ()
    try:
        return tuple(file_identity(file) for file in files_of(_described(source)))
    except GalleriaError:  # opening it says what is wrong
        return ()


def unknown(source: AnySource) -> InvalidParameter:
    """What is in the catalog, or runs, is opened by `pipeline.resources.opening`."""
    return InvalidParameter(f"{type(source).__name__} is no file, archive or description")


_: type[Sources] = HostSources
