"""What the kernel takes from a sandbox: the rights of a user, and system calls that nothing in it
needs. `command.spawn` gives these to bubblewrap, as they are descriptors.

Whoever runs galleria, what is inside has the user 65534 or the one after, no groups, and no way to
another namespace. Run by root it is that user (65534) outside, too: what only root may write
(/proc/sys above all) is not its own. What is left of root is CAP_DAC_OVERRIDE in the sandbox's user
namespace: the files that it is shown must be readable whoever owns them.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from adapters.process import command, seccomp
from pipeline.data.text import printable
from pipeline.errors import EnvironmentMissing

NOBODY = 65534
NONE = "the kernel gives no user namespace to the sandbox"
ADVICE = (
    "sysctl user.max_user_namespaces (and, in a container, its seccomp profile) must allow them; "
    "or set sandbox = false in the configuration, at your own risk"
)


@dataclass(frozen=True, slots=True)
class Confinement:
    """What bubblewrap is started with: words before it, its first options, and the descriptors that
    these name."""

    before: tuple[str, ...]
    options: tuple[str, ...]
    descriptors: tuple[int, ...]


@contextlib.contextmanager
def confinement(program: str) -> Iterator[Confinement]:
    """The confinement of one start of bubblewrap, which is `program`."""
    with contextlib.ExitStack() as stack:
        options: list[str] = []
        descriptors: list[int] = []
        if content := seccomp.program():
            # a pipe, and not a file: that would be at its end for the next one
            reading, writing = os.pipe()
            stack.callback(os.close, reading)
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(content)
            options += ["--seccomp", str(reading)]
            descriptors.append(reading)
        if os.geteuid():
            options += ["--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY)]
            options += ["--disable-userns"] * _can_disable_namespaces(program)
            yield Confinement((), tuple(options), tuple(descriptors))
            return
        user = _namespace.get()
        # every number is one more in there
        options += ["--userns", str(user), "--uid", str(NOBODY + 1), "--gid", str(NOBODY + 1)]
        options += ["--cap-drop", "ALL", "--cap-add", "CAP_DAC_OVERRIDE"]
        yield Confinement(("setpriv", "--clear-groups"), tuple(options), (*descriptors, user))


def sandbox_user() -> tuple[int, int]:
    """The number of a sandbox's user inside, and outside."""
    own = os.geteuid()
    return (NOBODY, own) if own else (NOBODY + 1, NOBODY)


@cache
def _can_disable_namespaces(program: str) -> bool:
    """Whether this bubblewrap has the option (0.8.0). Else the filter alone forbids new ones."""
    return b"--disable-userns" in command.run(["env", program, "--help"]).stdout


class _Namespace:
    """The user namespace of root's sandboxes, made at first need: a descriptor.

    It has every user and group of this process's, each as the number after its own. So none of its
    processes is root (0) by its number alone, and giving up the number 1, which is root outside,
    does not give up what bubblewrap still has to mount. Number 0, which some file systems need, is
    the last one outside.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptor: int | None = None

    def get(self) -> int:
        with self._lock:
            if self._descriptor is None:
                self._descriptor = _make_namespace()
            return self._descriptor


_namespace = _Namespace()


def _make_namespace() -> int:
    # a process in it, until it has its maps; told by a line that it is in it
    argv = ["unshare", "--user", "sh", "-c", "echo; read -r _"]
    with command.spawn(argv, stdin=-1) as holder:
        assert holder.stdout is not None  # noqa: S101 - pipes by construction
        assert holder.stderr is not None  # noqa: S101
        if not holder.stdout.readline():
            reason = printable(holder.stderr.read().decode(errors="replace").strip())
            raise EnvironmentMissing(f"{NONE}: {reason}", hint=ADVICE)
        place = Path("/proc", str(holder.pid))
        try:
            for name in ("uid_map", "gid_map"):
                (place / name).write_text(shifted(Path("/proc/self", name).read_text()))
            made = os.open(place / "ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise EnvironmentMissing(f"{NONE}: {error}", hint=ADVICE) from None
        holder.communicate()
    # no more of them inside, whatever else is forbidden there
    enter = ["nsenter", f"--user=/proc/self/fd/{made}", "sh", "-c"]
    enter.append("echo 0 >/proc/sys/user/max_user_namespaces")
    with command.spawn(enter, pass_fds=[made]) as last:
        last.communicate()
    return made


def shifted(text: str) -> str:
    """The map of a user namespace below the one whose own map is `text`, one number on."""
    ranges = [[int(word) for word in line.split()] for line in text.splitlines()]
    last = max(start + count for start, _, count in ranges) - 1
    lines = [f"0 {last} 1"]
    for start, _, count in ranges:
        length = count - (start + count - 1 == last)
        lines += [f"{start + 1} {start} {length}"] * (length > 0)
    return "\n".join(lines) + "\n"
