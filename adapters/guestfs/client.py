"""The GuestHost port: one libguestfs appliance for a guest's disks, in a helper process.

    galleria --JSON lines--> helper.py (the distribution's Python, in the sandbox)
                               libguestfs --> qemu --> appliance: mounts the guest's file systems

Crashes, hangs and memory of libguestfs stay outside galleria; a host file that an image names is
not there.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from adapters.filesystem.work import WorkDirectory
from adapters.guestfs import accelerator, ext, fixed, free, leftover, luks, rpm, touch, volumes
from adapters.guestfs import helper as helper_module
from adapters.guestfs.changes import SYSROOT
from adapters.guestfs.devices import Devices, survey
from adapters.guestfs.facts import System, find_system, mountable
from adapters.guestfs.guest import GuestfsGuest
from adapters.guestfs.mounts import device_name
from adapters.guestfs.process import CallFailed, Helper, printable
from adapters.guestfs.shell import quote, run_script
from adapters.process import command, usage
from adapters.process.sandbox import Sandbox
from pipeline.errors import InvalidParameter, StageFailed
from pipeline.ports import (
    Chain,
    FreeSpace,
    Guest,
    GuestFacts,
    GuestHost,
    GuestSession,
    Package,
    Unmounted,
    VolumeState,
)

PYTHON = Path("/usr/bin/python3")
# what taking a guest's contents apart raises where it is not what it should be
GUEST_ERRORS = (ValueError, LookupError, ArithmeticError, RecursionError, MemoryError)
LAUNCH_SECONDS = 180.0  # 8 s measured under software emulation on two idle cores
# no access times; no zeroing of inode tables in the background; blocks given out when they are
# written, in that order, and no commit but at the end: the same in every run, without a sync (130
# ms under software emulation) after each file
MOUNT_OPTIONS = {
    "ext2": "noatime",
    "ext3": "noatime,commit=600",
    "ext4": "noatime,commit=600,noinit_itable,nodelalloc",
    "xfs": "noatime",
    "btrfs": "noatime",
}
# few words on the serial console, and no guard against what other guests of one CPU could see: the
# emulated one has no others (0.5 s of a boot)
KERNEL = "quiet mitigations=off"


@dataclass(frozen=True, slots=True)
class GuestfsHost:
    """Starts appliances. `cache_dir` keeps the fixed appliance, the accelerator's name and the
    sessions' scratch files. `python` is the interpreter that libguestfs's bindings were built for;
    `keys` open encrypted volumes.
    """

    sandbox: Sandbox
    cache_dir: Path
    python: Path = PYTHON
    launch_seconds: float = LAUNCH_SECONDS
    keys: tuple[luks.Key, ...] = ()

    def accelerator(self, *, again: bool = False) -> accelerator.Accelerator:
        """What sessions will use on this host; builds the fixed appliance if need be."""
        with fixed.appliance(self.cache_dir) as appliance:
            return accelerator.probe(self.sandbox, self.cache_dir, appliance, again=again)

    @contextlib.contextmanager
    def session(self, chains: Sequence[Chain], *, writable: bool) -> Iterator["GuestfsSession"]:
        """`chains`: as Images.create_overlay made them, or a single layer each."""
        with contextlib.ExitStack() as stack:
            appliance = stack.enter_context(fixed.appliance(self.cache_dir))
            sessions = WorkDirectory(self.cache_dir / "sessions")
            work = stack.enter_context(sessions.directory())
            fixed.provide(appliance, work, confined=self.sandbox.enabled)
            found = accelerator.probe(self.sandbox, self.cache_dir, appliance)
            argv = self._argv(chains, appliance, work, found.kind, writable=writable)
            helper = stack.enter_context(_started(argv))
            for chain in chains:
                top = chain[0]
                helper.post(
                    "add_drive_opts",
                    self.sandbox.name(top.path),
                    format=top.format.qemu_name,
                    readonly=not writable,
                )
            helper.post("set_network", False)
            helper.post("set_append", KERNEL)
            # nobody waits for it here: what the caller does until it asks something is for free
            helper.post("launch", timeout=self.launch_seconds)
            session = GuestfsSession(helper, len(chains), writable=writable, keys=self.keys)
            try:
                yield session
            except GUEST_ERRORS as error:
                raise StageFailed(
                    f"a guest cannot be read: {type(error).__name__}: {printable(str(error), 300)}",
                    hint="something in it is not as any system makes it; please report it",
                ) from error
            # not in a finally: after a failure the overlay is thrown away, and its helper killed
            _close(helper, confined=self.sandbox.enabled)
        touch.on_host(self.sandbox, chains, session.later)

    def _argv(
        self, chains: Sequence[Chain], appliance: Path, work: Path, kind: str, *, writable: bool
    ) -> list[str]:
        tops = [chain[0] for chain in chains]
        lower = [layer for chain in chains for layer in chain[1:]]
        script = Path(helper_module.__file__)
        env = _environment(self.sandbox.name(appliance), work, kind, confined=self.sandbox.enabled)
        return self.sandbox.wrap(
            [str(self.python), "-I", self.sandbox.name(script)],
            read=[script, appliance, *lower, *([] if writable else tops)],
            edit=[top.path for top in tops] if writable else [],
            scratch=work,
            devices=[str(accelerator.KVM)] if kind == "kvm" else [],
            env=env,
        )


def _environment(appliance: str, work: Path, kind: str, *, confined: bool) -> Mapping[str, str]:
    temporary = "/tmp" if confined else str(work)  # noqa: S108 - the sandbox's own
    return {
        "LIBGUESTFS_BACKEND": "direct",
        "LIBGUESTFS_BACKEND_SETTINGS": "force_kvm" if kind == "kvm" else "force_tcg",
        "LIBGUESTFS_PATH": appliance,
        "LIBGUESTFS_CACHEDIR": temporary,
        "TMPDIR": temporary,
        "HOME": temporary,
    }


@contextlib.contextmanager
def _started(argv: list[str]) -> Iterator[Helper]:
    """A helper for the length of a `with`; killed with everything below it if still there."""
    helper = None
    try:
        with command.spawn(argv, stdin=-1, grouped=True) as process:
            helper = Helper(process)
            yield helper
    finally:
        if helper is not None:
            helper.join()


def _close(helper: Helper, *, confined: bool) -> None:
    """Everything that was written is in the overlay when this returns."""
    try:
        helper.call("umount_all")
        helper.call("shutdown")
    except CallFailed as error:
        raise StageFailed(
            f"the appliance could not be shut down, what was written may be lost: {error.message}"
        ) from error
    helper.call("close")
    if confined:
        usage.tell(helper.call("cpu_seconds"))
    helper.finish()


class GuestfsSession:
    """One running appliance."""

    def __init__(
        self, helper: Helper, disks: int, *, writable: bool, keys: Sequence[luks.Key] = ()
    ) -> None:
        self._helper = helper
        self._keys = keys
        self._opened: list[str] = []
        self._disks = disks
        self._writable = writable
        self._system: System | None = None
        self._devices: Devices | None = None
        self._before: dict[str, ext.Before] = {}
        self._guest: GuestfsGuest | None = None  # what is mounted, if anything is
        self._edited = free.Edited()
        self._covered: tuple[str, ...] = ()
        self._names: frozenset[str] = frozenset()  # of what the guest mounts
        self._places = {"/"}  # mount points that the appliance has while nothing is mounted
        self.later: list[touch.Work] = []  # to be done when the appliance is gone

    def part(self, *disks: int) -> "GuestfsSession":
        """A session for one of several guests that share this appliance: it sees its own disks
        only. One at a time, each to its end (`free_ranges`)."""
        shared = GuestfsSession(self._helper, self._disks, writable=self._writable)
        shared._devices = self._surveyed().of(disks)
        shared._before = self._before
        shared.later = self.later
        return shared

    def inspect(self) -> GuestFacts:
        return self._found_system().facts

    def mount(self, *, writable: bool = True, without: Collection[str] = ()) -> Guest:
        """Raises StageFailed when no operating system, or more than one, is on the first disk that
        has any, and when the root is not mounted as it should be."""
        if writable and self._writable:
            luks.refuse_locked(self._surveyed(), self._opened)
        writable = writable and self._writable
        points = self._points()
        self._unmount()
        covered = []
        mounted: dict[str, str] = {}
        for point in sorted(points, key=len):
            if point in without or (point != "/" and not self._is_directory(point)):
                continue
            covered += [point] * (point != "/" and self._lies_in(point))
            self._mount(points[point], point, writable=writable)
            mounted[point] = points[point]
        for point, source in self._found_system().binds.items():
            if point not in without and self._is_plain(source) and self._is_plain(point):
                covered += [point] * self._lies_in(point)
                run_script(self._helper, f"mount --bind {_rooted(source)} {_rooted(point)}")
                mounted[point] = mounted[leftover.holder(source, mounted)]
        if not without:
            self._covered, self._names = tuple(covered), frozenset(mounted.values())
        return self._now(mounted, writable=writable)

    def covered(self) -> tuple[str, ...]:
        return self._covered

    def unmounted(self) -> tuple[Unmounted, ...]:
        writable = self._guest is not None and self._guest.writable
        return tuple(
            leftover.unmounted(
                self._helper, self._surveyed(), self._names, self._opened, writable=writable
            )
        )

    def mount_volume(self, device: str, at: str = "/", *, writable: bool = True) -> Guest:
        self._unmount()
        writable = writable and self._writable
        for directory in map(str, [PurePosixPath(at), *PurePosixPath(at).parents][::-1]):
            if directory not in self._places:
                with contextlib.suppress(CallFailed):  # another guest's session made it
                    self._helper.call("mkmountpoint", directory)
                self._places.add(directory)
        self._mount(device, at, writable=writable)
        return self._now({at: device}, writable=writable)

    def volumes(self) -> tuple[VolumeState, ...]:
        return volumes.states(self._helper, self._surveyed())

    def rpm_packages(self) -> tuple[Package, ...]:
        self._unmount()
        return rpm.packages(self._helper, lambda: self.mount(writable=False))

    def free_ranges(self, *, zero_rest: bool) -> FreeSpace:
        if not self._writable:
            raise InvalidParameter("free space is only listed in a writable session")
        self._unmount()
        return free.free_space(
            self._helper,
            self._surveyed(),
            zero_rest=zero_rest,
            edited=replace(self._edited, before=self._before, later=self.later),
        )

    def _points(self) -> Mapping[str, str]:
        """Where what goes, as far as it is on these disks."""
        present = self._surveyed().kinds()
        return {
            point: name
            for point, name in mountable(self._found_system()).items()
            if device_name(name) in present
        }

    def _unmount(self) -> None:
        """Unmount everything; what was changed in it is known afterwards."""
        if self._guest is None:
            return
        if self._guest.writable:
            self._edited = self._edited.with_changes(self._guest.changes, self._surveyed())
        self._helper.call("umount_all")
        self._guest = None

    def _now(self, mounted: Mapping[str, str], *, writable: bool) -> Guest:
        """What is mounted now is the guest."""
        if writable:
            self._check_writable()
            self._hold_still()
        self._guest = GuestfsGuest(self._helper, mounted, writable=writable)
        return self._guest

    def _lies_in(self, point: str) -> bool:
        """Whether something is in a directory on which something is going to be mounted."""
        return bool(set(self._helper.call("ls", point)) - {"lost+found"})

    def _is_directory(self, point: str) -> bool:
        return bool(self._helper.call("is_dir", point, followsymlinks=True))

    def _is_plain(self, path: str) -> bool:
        """Whether it is a directory without links on the way: the appliance would follow them."""
        return bool(
            self._helper.call("is_dir", path) and self._helper.call("realpath", path) == path
        )

    def _found_system(self) -> System:
        if self._system is None:
            self._system = find_system(
                self._helper, self._surveyed(), lambda: GuestfsGuest(self._helper)
            )
        return self._system

    def _surveyed(self) -> Devices:
        if self._devices is None:
            self._devices = survey(self._helper, self._disks)
            self._opened = luks.unlock(
                self._helper, self._devices, self._keys, writable=self._writable
            )
            if self._opened:
                self._devices = survey(self._helper, self._disks)
            self._before = free.remember(self._helper, self._devices)
        return self._devices

    def _mount(self, device: str, point: str, *, writable: bool) -> None:
        kind = self._surveyed().kinds().get(device_name(device), "")
        options = MOUNT_OPTIONS.get(kind, "") if writable else "ro"
        try:
            self._helper.call("mount_options", options, device, point)
        except CallFailed as error:
            raise StageFailed(
                f"the guest's {printable(point)} ({printable(device)}) cannot be mounted: "
                f"{error.message}"
            ) from error

    def _hold_still(self) -> None:
        """What is written goes out when galleria says so (and when memory is short), not when a
        timer does: where things lie must not depend on how fast the host is."""
        self._helper.call("debug", "sh", ["echo 0 > /proc/sys/vm/dirty_writeback_centisecs"])

    def _check_writable(self) -> None:
        """A mount that was asked to be writable may silently not be: NTFS of a hibernated Windows,
        a damaged ext4."""
        mounts = str(self._helper.call("debug", "sh", ["cat /proc/mounts"]))
        for line in mounts.splitlines():
            device, point, _, options = line.split()[:4]
            if point.startswith("/sysroot") and "ro" in options.split(","):
                raise StageFailed(
                    f"{printable(device)} could only be mounted read-only",
                    hint="a hibernated or not cleanly shut down guest: start it, shut it down "
                    "fully (Windows: with Restart, or without fast startup) and try again",
                )


def _rooted(path: str) -> str:
    """A directory of the guest in a script of the appliance."""
    return quote(SYSROOT + path)


if TYPE_CHECKING:
    _host: type[GuestHost] = GuestfsHost
    _session: type[GuestSession] = GuestfsSession
