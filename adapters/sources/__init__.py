"""Every kind of source, opened (the `Sources` port): one module a kind."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.filesystem.identity import disk_identity, file_identity
from adapters.sources import archive, libvirt, machines
from pipeline.errors import InvalidParameter
from pipeline.model.sources import (
    AnySource,
    ArchiveSource,
    DiskSource,
    QemuSource,
    UrlSource,
    VmSource,
)
from pipeline.ports import ImageFormat, Layer, Pins
from pipeline.ports.machines import MachineFacts
from pipeline.ports.sources import Sources, Supply

if TYPE_CHECKING:
    from adapters.sources.download import Downloads


class HostSources:
    """Sources that this host can reach. What is copied out of a file is held still meanwhile.
    `downloads` is only asked for when there is a URL: few jobs need an HTTP client."""

    def __init__(self, pins: Pins, downloads: Callable[[], "Downloads"], libvirt_uri: str) -> None:
        self._pins = pins
        self._downloads = downloads
        self._libvirt_uri = libvirt_uri

    def identity(self, source: AnySource) -> tuple[object, ...]:
        match source:
            case DiskSource():
                return disk_identity(source)
            case UrlSource():
                return ("url", source.lun, source.url, source.sha256)
            case ArchiveSource():
                return (source.form.value, *file_identity(source.path))
            case VmSource():
                machine = libvirt.machine_at_rest(source, self._libvirt_uri)
                disks = tuple(disk_identity(disk) for disk in machine.disks)
                variables = machine.nvram
                if variables is not None and variables.exists():
                    disks += (file_identity(variables),)
                return ("vm", repr(machine.description), *disks)
            case _:
                raise unknown(source)

    def look(self, source: QemuSource) -> MachineFacts:
        raise unknown(source)

    @contextmanager
    def open(self, source: AnySource, work: Path) -> Iterator[Supply]:
        match source:
            case DiskSource():
                yield Supply((source,))
            case UrlSource():
                with self._downloads().open(source) as path:
                    yield Supply((DiskSource(source.lun, path),))
            case ArchiveSource():
                with self._unpacked(source, work) as supply:
                    yield supply
            case VmSource():
                machine = libvirt.machine_at_rest(source, self._libvirt_uri)
                nvram = self._nvram(machine.nvram, work) if machine.nvram else None
                yield Supply(machine.disks, replace(machine.description, nvram=nvram))
            case _:
                raise unknown(source)

    @contextmanager
    def _unpacked(self, source: ArchiveSource, work: Path) -> Iterator[Supply]:
        into = archive.private_directory(work)
        try:
            layer = Layer(source.path, ImageFormat.RAW)
            with self._pins.pin([(layer,)], into) as pin:
                supply = machines.open_archive(pin.chains[0][0].path, source.form, into)
                pin.verify()
            yield supply
        finally:
            archive.discard(into)

    def _nvram(self, path: Path, work: Path) -> bytes | None:
        """The variables of a machine's firmware; a machine that never ran has none."""
        if not path.exists():
            return None
        if path.stat().st_size > libvirt.NVRAM_LIMIT:
            raise InvalidParameter(f"the NVRAM {str(path)!a} is larger than 64 MiB")
        with self._pins.pin([(Layer(path, ImageFormat.RAW),)], work) as pin:
            content = pin.chains[0][0].path.read_bytes()
            pin.verify()
        return content


def unknown(source: AnySource) -> InvalidParameter:
    """What is in the catalog, or runs, is opened by `pipeline.resources.opening`."""
    return InvalidParameter(f"{type(source).__name__} is no file, archive or description")


_: type[Sources] = HostSources
