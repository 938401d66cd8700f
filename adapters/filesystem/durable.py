"""Atomic and durable commits of files and directories. All durability of files goes through here.

A commit is: write under a private name on the same file system, sync the content, rename to the
public name, sync the directory. The primitives, each one step that a crash can fall behind, are

    sync_file  sync_directory  sync_file_system  rename_new  exchange  replace  remove_tree

and every other function here is made of them, through this module's names: a crash test replaces
them by ones that end the process at the k-th call.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from adapters.filesystem import modes
from pipeline.errors import Refused
from pipeline.ports.runs import Lease, NoLease

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1  # linux/fs.h; renameat2(2)
_RENAME_EXCHANGE = 2
_STATFS = 256  # bytes, more than struct statfs has; its first member is the type
_BTRFS = 0x9123683E  # linux/magic.h
_LOCK_SUFFIX = ".lock"
_TOKEN = re.compile(r"[0-9a-f]{32}")
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}")  # of a file that `write_file` makes
MARKER = b"galleria: this directory is being made\n"
_TAG = re.compile(re.escape(MARKER) + rb"run ([0-9a-f]{1,32}:[0-9]{1,18})\n")
FEW_TREES = 4

_libc = ctypes.CDLL(None, use_errno=True)


def sync_file(file: Path | int) -> None:
    """Make a file's content and metadata durable. Never call it again on a file where it failed:
    the kernel has dropped the pages, and the error is final."""
    if isinstance(file, int):
        os.fsync(file)
        return
    fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable.

    On btrfs with all else on the file system: fsync writes a log there, and one with a directory
    under two names, as a renamed one is, can't be replayed after a power cut (Linux 6.18: "invalid
    nlink"): the file system can't be mounted then.
    """
    if _on_btrfs(path):
        sync_file_system(path)
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file_system(path: Path) -> None:
    """Make everything on the file system of `path` durable in one go, and report write errors
    (syncfs(2), Linux 5.8)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(fd)


def _on_btrfs(path: Path) -> bool:
    facts = ctypes.create_string_buffer(_STATFS)
    if _libc.statfs(os.fsencode(path), facts) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return ctypes.c_long.from_buffer(facts).value == _BTRFS


def rename_new(source: Path, target: Path) -> None:
    """Give a file or directory a name that must be new. Raises FileExistsError when it is not."""
    arguments = (_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE)
    if hasattr(_libc, "renameat2"):
        if _libc.renameat2(*arguments) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(number, os.strerror(number), str(source), None, str(target))
    _rename_new_portable(source, target)


def _rename_new_portable(source: Path, target: Path) -> None:
    """For file systems without RENAME_NOREPLACE: a link never replaces, and a rename does not
    replace a directory that is not empty (rename(2)); galleria commits no empty directory."""
    if stat.S_ISDIR(source.lstat().st_mode):
        try:
            source.rename(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):
                raise FileExistsError(
                    errno.EEXIST, os.strerror(errno.EEXIST), str(target)
                ) from error
            raise
        return
    os.link(source, target, follow_symlinks=False)
    source.unlink()


def exchange(one: Path, other: Path) -> None:
    """Let two files or directories have each other's names, at once."""
    arguments = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if _libc.renameat2(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))


def replace(source: Path, target: Path) -> None:
    """Give a file a name, taking it from the file that has it."""
    source.replace(target)


def remove_tree(path: Path) -> None:
    """Remove a file or a whole directory; nothing to do when it is absent. No link is followed, but
    for those on the way to `path`."""
    try:
        shutil.rmtree(path)
    except NotADirectoryError:
        path.unlink(missing_ok=True)
    except FileNotFoundError:
        return


# --- files -------------------------------------------------------------------------------------


def write_file(path: Path, content: bytes, *, mode: int = 0o600, overwrite: bool = False) -> None:
    """Make a file with this content, complete and durable, or leave things as they were. In a
    group's directory it is the group's too.

    Raises FileExistsError when it exists, unless `overwrite`.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        fill(temporary, content, mode=mode)
        modes.give(temporary, modes.group_of(path.parent))
        (replace if overwrite else rename_new)(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def fill(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Make a new file in a directory that is not public yet; its content is durable on return."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.fchmod(fd, mode)
        sync_file(fd)
    finally:
        os.close(fd)


def sync_tree(path: Path) -> None:
    """Make every file and directory below `path`, and `path`, durable."""
    if _on_btrfs(path):
        sync_file_system(path)
        return
    for directory, _, names in os.walk(path, topdown=False):
        for name in sorted(names):
            sync_file(Path(directory, name))
        sync_directory(Path(directory))


def sync_trees(paths: Sequence[Path]) -> None:
    """Make directories of one file system durable with all that is in them. Many small files cost
    a journal commit each (10 ms for every one of 300): beyond a few, the file system is synced."""
    if len(paths) > FEW_TREES:
        sync_file_system(paths[0])
        return
    for path in paths:
        sync_tree(path)


# --- staging -----------------------------------------------------------------------------------


class Staging:
    """A private directory below a staging root, on the file system of what it will become.

        <root>/<token>        the directory; the token is 32 hexadecimal digits
        <root>/<token>.lock   says in its first line that it is galleria's, and in the second of
                              which run; held by flock as long as its owner lives, and let go by
                              the kernel

    Whoever can take the lock knows that the owner is dead, and that the directory is stale. Of one
    that lives, but whose run was taken over, the directory is moved away (`sweep`): what it was to
    become, and what it is given, fails then.

    The root has to be a directory, no link, of this user, of root or of the owner of the directory
    that it is in: another one may be planted, and lead elsewhere. Raises Refused.
    """

    def __init__(self, root: Path, lease: Lease | None = None) -> None:
        self._root = root
        self._lease = lease or NoLease()
        fd = None
        while fd is None:
            root.mkdir(parents=True, exist_ok=True)
            token = secrets.token_hex(16)
            with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as stack:
                # an empty root goes with its last user
                self._held, _ = open_root(root)
                stack.callback(os.close, self._held)
                self._path, self._lock_path = _names(self._held, token)
                fd = lock(self._lock_path, create=True)
                if fd is not None:
                    stack.pop_all()
        self.path = root / token
        self._lock: int | None = fd
        try:
            tag = self._lease.tag
            os.write(fd, MARKER + (f"run {tag}\n".encode() if tag else b""))
            self._path.mkdir(mode=modes.DIRECTORY)
        except BaseException:
            self.close()
            raise

    def commit(self, target: Path) -> None:
        """Make the directory durable and public as `target` (a new name), then let it go. In a
        group's directory it is the group's too.

        Raises FileExistsError when the name is taken: the caller decides what that means.
        """
        modes.give(self.path, modes.group_of(target.parent))
        sync_tree(self.path)
        self._lease.check()
        rename_new(self.path, target)
        try:
            sync_directory(target.parent)
            sync_directory(self._root)
        except BaseException:
            target.rename(self.path)  # a name that may not last was never given
            raise
        self.close()

    def commit_over(self, target: Path, replaced: Path) -> None:
        """Make the directory durable and public in place of `target`, which is at `replaced` (a new
        name) from then on."""
        modes.give(self.path, modes.group_of(target.parent))
        sync_tree(self.path)
        replaced.parent.mkdir(mode=modes.DIRECTORY, exist_ok=True)
        self._lease.check()
        exchange(self.path, target)
        rename_new(self.path, replaced)
        for directory in (target.parent, replaced.parent, self._root):
            sync_directory(directory)
        self.close()

    def give(self, name: str, target: Path, *, over: bool = False) -> None:
        """Give something in the directory, which is durable, a name outside: a new one, or (`over`)
        that of a file."""
        self._lease.check()
        (replace if over else rename_new)(self.path / name, target)

    def take(self, source: Path, name: str) -> None:
        """Take something from outside into the directory: it goes with that."""
        self._lease.check()
        rename_new(source, self.path / name)

    def close(self) -> None:
        """Remove what was not committed. Safe to call twice."""
        if self._lock is None:
            return
        try:
            remove_tree(self._path)
            self._lock_path.unlink(missing_ok=True)
        finally:
            os.close(self._lock)
            os.close(self._held)
            self._lock = None

    def __enter__(self) -> "Staging":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sweep(root: Path, lease: Lease | None = None, *, dry_run: bool = False) -> list[Path]:
    """Remove the staging directories whose owners are dead, or whose runs were taken over; returns
    them. `dry_run` removes none.

    Only what `Staging` has made goes: a directory with its kind of name, beside a lock that is
    marked as galleria's. What can't be removed, and all in a root that is not trusted, stays.
    """
    removed: list[Path] = []
    try:
        held, trusted = open_root(root)
    except (OSError, Refused):  # who writes there is told
        return removed
    try:
        for path in sorted(Path(f"/proc/self/fd/{held}").iterdir()):
            token = path.name.removesuffix(_LOCK_SUFFIX)
            if path.name == token or not _TOKEN.fullmatch(token):
                continue
            # another user's, or a file system that is read-only or broken: theirs to sweep
            with contextlib.suppress(OSError, RecursionError):
                if _sweep_one(held, token, trusted, dry_run=dry_run) or (
                    lease is not None and not dry_run and _evict(root, held, token, trusted, lease)
                ):
                    removed.append(root / token)
    finally:
        os.close(held)
    return removed


def _sweep_one(held: int, token: str, trusted: set[int], *, dry_run: bool) -> bool:
    """Remove one staging directory with its lock, if its owner is dead; whether there was one."""
    directory, lock_path = _names(held, token)
    fd = lock(lock_path)
    if fd is None:
        return False
    try:
        marker = _marker(fd)
        if os.fstat(fd).st_uid not in trusted or marker is None:
            return False
        try:
            found = directory.lstat()
        except FileNotFoundError:  # it was committed, or never made
            if not dry_run:
                lock_path.unlink()
            return False
        if not marker or not _ours(found, held, trusted):
            return False
        if dry_run:
            return True
        remove_tree(directory)
        lock_path.unlink(missing_ok=True)
        return True
    finally:
        os.close(fd)


def _evict(root: Path, held: int, token: str, trusted: set[int], lease: Lease) -> bool:
    """Move away the directory of a process that lives and whose run was taken over; whether it was
    one."""
    directory, lock_path = _names(held, token)
    fd = os.open(lock_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        marker, owner = _marker(fd), os.fstat(fd).st_uid
    finally:
        os.close(fd)
    tag = _TAG.fullmatch(marker or b"")
    if owner not in trusted or tag is None or not lease.lost(tag[1].decode()):
        return False
    if not _ours(directory.lstat(), held, trusted):
        return False
    with Staging(root) as grave:  # a crash in between leaves it to the next sweep
        rename_new(directory, grave.path / "evicted")
    return True


def _marker(fd: int) -> bytes | None:
    """What a lock file says; empty when nothing yet, None when it is not galleria's."""
    text = os.pread(fd, len(MARKER) + 100, 0)
    return text if text in (b"", MARKER) or _TAG.fullmatch(text) else None


def _ours(found: os.stat_result, held: int, trusted: set[int]) -> bool:
    """Whether it is a directory of a trusted user, on the root's file system."""
    directory = stat.S_ISDIR(found.st_mode) and found.st_uid in trusted
    return directory and found.st_dev == os.fstat(held).st_dev


def open_root(root: Path) -> tuple[int, set[int]]:
    """A descriptor of a staging root, and the users whose entries in it are trusted."""
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        raise _planted(root, "it is no directory, but a link or a file") from None
    trusted = {os.geteuid(), 0, os.stat("..", dir_fd=fd).st_uid}
    if (owner := os.fstat(fd).st_uid) not in trusted:
        os.close(fd)
        raise _planted(root, f"it belongs to the user {owner}")
    return fd, trusted


def _planted(root: Path, why: str) -> Refused:
    return Refused(
        f"{root} is not used for unfinished work: {why}",
        hint="somebody else has put it there: look at it, then remove it",
    )


def _names(held: int, token: str) -> tuple[Path, Path]:
    """A staging directory and its lock, named by the root's descriptor and not by its path."""
    root = Path(f"/proc/self/fd/{held}")
    return root / token, root / (token + _LOCK_SUFFIX)


def lock(path: Path, *, create: bool = False) -> int | None:
    """Open and lock a lock file (`create`: made if absent), until the descriptor is closed or the
    process ends. None when another process holds it, or took it away meanwhile."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    fd = os.open(path, flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_ino == path.stat().st_ino:
            return fd
    except (BlockingIOError, FileNotFoundError):
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None
