"""Opening a source of any kind as the files of its disks."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipeline.model import Origin
from pipeline.model.descriptions import Description
from pipeline.model.sources import (
    AnySource,
    DiskSource,
    QemuSource,
    VmSource,
)
from pipeline.ports.machines import MachineFacts


@dataclass(frozen=True, slots=True)
class Supply:
    """The disks of a source. They are there as long as it is open.

    `origins` says, by LUN, what disks are copies of; one with a digest is a base of a zone, and
    need not be read again. `lasting`: the files stay when it is closed. `generalized`: all
    of it is known to be; `report` is what was stored of its guest (pipeline.guest.report), if all
    of it was stored together.
    """

    disks: tuple[DiskSource, ...]
    description: Description = field(default_factory=Description)
    origins: Mapping[int | None, Origin] = field(default_factory=dict)
    generalized: bool = False
    report: Mapping[str, Any] = field(default_factory=dict)
    lasting: bool = True

    @property
    def stored(self) -> dict[int | None, str]:
        """The digests by LUN, when zones hold every disk; else nothing."""
        found = {lun: origin.digest for lun, origin in self.origins.items() if origin.digest}
        return found if len(found) == len(self.disks) else {}


class Sources(Protocol):
    """Opens every kind of source. None is ever written to."""

    def identity(self, source: AnySource) -> tuple[object, ...]:
        """What tells this source, as it now is, from another, by facts of its content: the same
        after a reboot and on another host. Cheap: little of the content is read. Raises
        NotFound."""
        ...

    def machine_facts(self, source: QemuSource | VmSource) -> MachineFacts | None:
        """A running machine as it is now; nothing of it is captured. None for one that does not
        run. Raises NotFound."""
        ...

    def open(self, source: AnySource, work: Path) -> AbstractContextManager[Supply]:
        """Make the disks of a source available as files, in `work` where they have to be made."""
        ...

    def unwrapped(self, source: DiskSource, work: Path) -> AbstractContextManager[DiskSource]:
        """A disk as one image file: itself, or what was made of it in `work` where it is
        compressed, packed in an archive, in parts, or a device."""
        ...
