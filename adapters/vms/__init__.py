"""VMs on this host (the `VmDirectories` port): put together in private, then given their names."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from adapters.filesystem import durable, full, modes
from adapters.filesystem.calls import clone
from adapters.pins.writers import qemu_lock, writers
from adapters.vms import domain, line, parts
from adapters.vms.parts import Start
from pipeline.errors import Conflict
from pipeline.model import Architecture
from pipeline.ports.runs import Lease, NoLease
from pipeline.ports.vms import Machine, VmDirectories

DOMAIN, SCRIPT = "domain.xml", "start.sh"
STAGING = ".galleria-staging"
DOMAIN_LIMIT = 1 << 20  # bytes


class HostVmDirectories:
    """`group`: who may use the VMs beside the user; None: whoever the directory is for. They are
    put in place under `lease`. `accelerator` says "kvm" or "tcg", whichever works here."""

    def __init__(
        self,
        group: int | None = None,
        lease: Lease | None = None,
        accelerator: Callable[[Architecture], str] = lambda _: "kvm",
    ) -> None:
        self._group = group
        self._lease = lease or NoLease()
        self._accelerator = accelerator

    def exists(self, home: Path) -> bool:
        return os.path.lexists(home)

    def holds(self, home: Path, uuid: str) -> bool:
        try:
            with (home / DOMAIN).open("rb") as file:
                return f"<uuid>{uuid}</uuid>".encode() in file.read(DOMAIN_LIMIT)
        except (FileNotFoundError, NotADirectoryError):
            return False

    @contextlib.contextmanager
    def staging(self, out: Path) -> Iterator[Path]:
        root = out.absolute() / STAGING
        try:
            with full.room(str(out), "make room there, or choose another --out"):
                modes.make_directories(out.absolute(), self._group)
                durable.sweep(root, self._lease)
                with durable.Staging(root, self._lease) as staging:
                    yield staging.path
        finally:
            with contextlib.suppress(OSError):
                root.rmdir()  # another run may be at work in it

    def describe(self, machines: Sequence[Machine], staged: Sequence[Path]) -> None:
        for machine, directory in zip(machines, staged, strict=True):
            self._describe(machine, directory)

    def _describe(self, machine: Machine, directory: Path) -> None:
        start = parts.plan(machine, self._accelerator(machine.architecture))
        if start.nvram is not None:
            from adapters.vms.signatures import enroll

            _write_nvram(machine, start, directory / parts.NVRAM)
            enroll(machine.signatures, directory / parts.NVRAM)
        if machine.profile is not None:
            from adapters.vms.seed import seed

            (directory / parts.SEED).write_bytes(seed(machine.profile, machine.uuid))
        (directory / DOMAIN).write_bytes(domain.domain(machine, start))
        script = directory / SCRIPT
        script.write_bytes(os.fsencode(line.script(machine, start)))
        script.chmod(0o700)

    def place(self, staged: Sequence[Path], homes: Sequence[Path]) -> None:
        placed: list[tuple[Path, Path]] = []
        group = modes.group_of(homes[0].parent) if self._group is None else self._group
        for path in staged:
            modes.give(path, group)
        durable.sync_trees(staged)
        try:
            for path, home in zip(staged, homes, strict=True):
                try:
                    durable.rename_new(path, home)
                except FileExistsError:
                    raise Conflict(f"{home} exists already", hint="choose another --name") from None
                placed.append((path, home))
            durable.sync_directory(homes[0].parent)
        except BaseException:
            for path, home in placed:
                home.rename(path)  # with the staging they go
            raise

    def users(self, path: Path) -> str:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return ""
        try:
            locked = qemu_lock(fd)
        finally:
            os.close(fd)
        return f"a running qemu {locked}" if locked else ", ".join(writers(path))

    def discard(self, home: Path) -> None:
        """Gone at once, then its files."""
        if not home.exists():
            return
        with self.staging(home.parent) as private:
            durable.rename_new(home, private / "discarded")
            durable.sync_directory(home.parent)


def _write_nvram(machine: Machine, start: Start, path: Path) -> None:
    if machine.nvram is not None:
        path.write_bytes(machine.nvram)
    elif start.template is not None and not clone(start.template, path):
        shutil.copyfile(start.template, path)


_: type[VmDirectories] = HostVmDirectories
