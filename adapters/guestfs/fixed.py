"""The fixed appliance: libguestfs's kernel and root file system, built once and kept.

Inside the sandbox libguestfs can't build its appliance (it needs the host's packages and kernel),
so it is made outside, before any untrusted byte is near, by libguestfs-make-fixed-appliance(1),
and then made to boot faster (quick.py), which is tried: 0.4 GiB, 20 to 60 s, kept under the user's
cache directory until libguestfs or the kernel changes.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from adapters.filesystem import leftovers
from adapters.guestfs import quick
from adapters.guestfs.process import printable
from adapters.process import command
from adapters.process.confinement import sandbox_user
from pipeline.errors import CommandFailed, EnvironmentMissing
from pipeline.model.garbage import Collected, Freed, Garbage, Keep, Kept

PROGRAM = "libguestfs-make-fixed-appliance"
FILES = ("kernel", "initrd", "root")
SLOW = "slow"  # says why the appliance is as libguestfs made it
QEMU = "qemu"  # what libguestfs found out about qemu: each launch would ask it again, for 0.3 s
BUILD_SECONDS = 600.0
_KEY = re.compile(r"[0-9a-f]{16}")
_BUILD = re.compile(r"build-[a-z0-9_]{8}")
HINT = (
    "install libguestfs-tools and a kernel package (linux-image-cloud-amd64 will do; a kernel "
    "must be readable for the user: Ubuntu's are not until dpkg-statoverride makes them so)"
)


def ingredients() -> list[Path]:
    """What the appliance is made from: it is built again when one of them changes."""
    # at most one directory for the architecture: to walk all of /usr/lib takes 0.2 s a session
    places = [found for lib in ("lib*", "lib*/*") for found in Path("/usr").glob(lib)]
    found = [*Path("/boot").glob("vmlinuz*")]
    for place in places:
        if place.is_dir():
            found += [*place.glob("guestfs/supermin.d/*"), *place.glob("libguestfs.so.0.*")]
    return sorted({path.resolve() for path in found if path.is_file()})


def key() -> str:
    digest = hashlib.blake2s(digest_size=8)
    for path in ingredients():
        stat = path.stat()
        digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    digest.update(Path(quick.__file__).read_bytes())  # what is changed in it
    return digest.hexdigest()


@contextlib.contextmanager
def appliance(cache_dir: Path) -> Iterator[Path]:
    """The directory of the fixed appliance, built if need be; not removed while in use."""
    home = cache_dir / "appliance"
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home / "lock", fcntl.LOCK_EX):
        target = home / key()
        if not all((target / name).is_file() for name in FILES):
            _build(target)
        _let_read(target)
        using = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(using, fcntl.LOCK_SH)
        _remove_others(home, target)
    try:
        yield target
    finally:
        os.close(using)


def _let_read(target: Path) -> None:
    """libguestfs asks access(2), by the user of the sandbox alone. Nothing of a guest is in it."""
    target.chmod(0o755)
    for path in target.iterdir():
        path.chmod(0o755 if path.is_dir() else 0o644)


def _build(target: Path) -> None:
    """Make it beside its place and move it there whole."""
    if shutil.which(PROGRAM, path=command.PATH) is None:
        raise EnvironmentMissing(f"{PROGRAM} is not installed", hint=HINT)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as work:
        made = Path(work, "made")
        env = {
            "LIBGUESTFS_BACKEND": "direct",
            "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg",  # it works everywhere, KVM may not
            "LIBGUESTFS_CACHEDIR": work,
            "TMPDIR": work,
            "HOME": work,
        }
        try:
            command.run([PROGRAM, str(made)], timeout=BUILD_SECONDS, env=env)
        except CommandFailed as error:
            message = f"libguestfs's appliance could not be built: {error.message}"
            raise EnvironmentMissing(message, hint=HINT) from error
        made = _hastened(made, env)
        (made / QEMU).mkdir()
        for file in Path(work).glob(".guestfs-*/qemu-*"):
            shutil.copy(file, made / QEMU)
        for name in FILES:
            with (made / name).open("rb") as written:
                os.fsync(written.fileno())
        # half of an earlier appliance, if any, is no appliance
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)


def _hastened(made: Path, env: Mapping[str, str]) -> Path:
    """A faster copy, if it boots; else the appliance as it was made, which says why."""
    fast = made.with_name("fast")
    try:
        command.run(
            ["cp", "-a", "--sparse=always", "--reflink=auto", str(made), str(fast)],
            timeout=BUILD_SECONDS,
        )
        quick.hasten(fast)
        trial = {**env, "LIBGUESTFS_PATH": str(fast)}
        command.run(["guestfish", "-a", "/dev/null", "run"], timeout=BUILD_SECONDS, env=trial)
    except (CommandFailed, EnvironmentMissing) as error:
        (made / SLOW).write_text(error.message)
        return made
    return fast


def slow(appliance: Path) -> str:
    """Why it is as libguestfs made it; empty when it is not."""
    path = appliance / SLOW
    return printable(path.read_text()) if path.is_file() else ""


def provide(appliance: Path, cache: Path, *, confined: bool) -> None:
    """Spare a session's libguestfs, which keeps its cache in `cache`, the questions to qemu. It
    takes a directory of its own user alone, which in the sandbox is another one."""
    own = os.geteuid()
    inside, outside = sandbox_user() if confined else (own, own)
    home = cache / f".guestfs-{inside}"
    home.mkdir(mode=0o700)
    if outside != own:
        os.chown(home, outside, outside)
    for file in (appliance / QEMU).iterdir():
        shutil.copy(file, home)


def _remove_others(home: Path, current: Path) -> list[Freed]:
    """Remove the appliances of older kernels and libguestfs versions that no session uses. Nothing
    else in the directory is touched: the user may have named one that others use too."""
    freed = []
    for other in _others(home, current):
        size = leftovers.size_of(other)
        with contextlib.suppress(BlockingIOError), _locked(other, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(other)
            freed.append(Freed(Garbage.APPLIANCE, other.name, size))
    return freed


def _others(home: Path, current: Path) -> list[Path]:
    return [
        other
        for other in sorted(home.iterdir())
        if _KEY.fullmatch(other.name)
        and not other.is_symlink()
        and other != current
        and all((other / name).is_file() for name in FILES)
    ]


def collect_appliances(cache_dir: Path, keep: Keep) -> Collected:
    """Remove what is of no use any more: appliances of other kernels, and halves of builds that
    were killed."""
    home = cache_dir / "appliance"
    if not (home / "lock").is_file():
        return Collected(str(home))
    try:
        with _locked(home / "lock", fcntl.LOCK_EX | fcntl.LOCK_NB):
            if keep.dry_run:
                found = _others(home, home / key())
                freed = [Freed(Garbage.APPLIANCE, p.name, leftovers.size_of(p)) for p in found]
            else:
                freed = _remove_others(home, home / key())
            with leftovers.named(home, _BUILD, trees=True) as halves:  # who builds has the lock
                rest = leftovers.collect(str(home), Garbage.APPLIANCE, halves, 0, None, keep)
    except BlockingIOError:
        return Collected(str(home), kept=(Kept(Garbage.APPLIANCE, "all", "one is being built"),))
    return Collected(str(home), (*freed, *rest.freed), rest.kept)


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
