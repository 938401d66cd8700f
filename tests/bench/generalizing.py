"""One generalization, for the overlay that it leaves."""

from collections.abc import Sequence
from pathlib import Path

from adapters.guestfs.client import GuestfsHost
from adapters.images import QemuImages
from adapters.process.sandbox import Sandbox
from adapters.progress import Mode, open_progress
from fixtures.debian import default_cache
from pipeline.guest.generalize import generalize
from pipeline.guest.profiles import select
from pipeline.ports import Layer
from pipeline.ports.extents import Range


def generalize_once(disk: Layer, path: Path) -> Sequence[Range]:
    """Generalize a disk with the default profile on an overlay at `path`; its free ranges."""
    sandbox = Sandbox()
    overlay = QemuImages(sandbox).create_overlay((disk,), path)
    host = GuestfsHost(sandbox, default_cache())
    result = generalize(host, [overlay], select(), open_progress(Mode.NONE))
    return result.free[0]
