"""The one door to subprocesses: argv lists, a clean environment, limits, timeouts, captured
stderr."""

import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO

from adapters.process import cgroup
from pipeline.errors import CommandFailed, EnvironmentMissing

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
GRACE_SECONDS = 5.0
# What runs the programs that images are opened with. The kernel's signal at the death of a parent
# comes too late for one that has not asked for it yet, and that is what bubblewrap's child does not
# have for a while. So a watcher is there from the start: it reads from a pipe that only this
# process can write to. When the pipe ends, it halts the one that it was started by ($$), that it
# forks no more, and kills its children, with which their namespace ends, and its group. It keeps no
# other file open: who waits for the end of a socket of the program's would wait for the watcher.
SANDBOXES = ("bwrap", "setpriv")
LEASH = """
(
  for fd in /proc/self/fd/*; do
    case ${fd##*/} in 0 | 1 | 2 | "$1") ;; *) eval "exec ${fd##*/}>&-" ;; esac
  done
  read -r me _ </proc/self/stat
  read -r _ <"/proc/self/fd/$1"
  kill -STOP $$ && sleep 0.1
  for child in $(cat /proc/$$/task/$$/children); do [ $child = $me ] || kill -KILL $child; done
  kill -KILL 0
) >/dev/null 2>&1 &
for group in $2; do echo $$ >"$group"; done 2>/dev/null
shift 2
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits of a child, in bytes and CPU seconds; None leaves one alone."""

    address_space: int | None = None
    cpu_seconds: int | None = None
    file_size: int | None = None
    open_files: int | None = None
    processes: int | None = None  # of the user; in the sandbox's namespace of users, if it has one
    core_size: int | None = None

    def prefix(self) -> list[str]:
        """The prlimit command that applies them; set by a program, as a hook between fork and exec
        is not safe in a process with threads. A limit that is already lower stays."""
        flags = []
        for name, number, value in (
            ("as", resource.RLIMIT_AS, self.address_space),
            ("cpu", resource.RLIMIT_CPU, self.cpu_seconds),
            ("fsize", resource.RLIMIT_FSIZE, self.file_size),
            ("nofile", resource.RLIMIT_NOFILE, self.open_files),
            ("nproc", resource.RLIMIT_NPROC, self.processes),
            ("core", resource.RLIMIT_CORE, self.core_size),
        ):
            if value is not None:
                most = resource.getrlimit(number)[1]
                flags.append(f"--{name}={value if most < 0 else min(value, most)}")
        return ["prlimit", *flags, "--"] if flags else []


# What Nova and KubeVirt settled on for inspecting hostile images, with room for large maps.
INSPECTION = Limits(address_space=2 << 30, cpu_seconds=60)


@dataclass(frozen=True, slots=True)
class Completed:
    stdout: bytes
    stderr: str
    status: int


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A child's whole environment: nothing of the caller's leaks in, messages are in English."""
    return {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", **(extra or {})}


def run(
    argv: Sequence[str],
    *,
    timeout: float = 600,
    ok: Sequence[int] = (0,),
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    hint: str = "",
    grouped: bool = False,
) -> Completed:
    """Run a command to its end. Raises CommandFailed on a status not in `ok` and on a timeout."""
    given = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    with spawn(argv, env=env, stdin=given, grouped=grouped) as process:
        try:
            stdout, stderr = process.communicate(input=stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            message = f"no end after {timeout:.0f} s"
            raise CommandFailed(list(argv), -signal.SIGKILL, message, hint=hint) from None
    text = stderr.decode(errors="replace")
    if process.returncode not in ok:
        raise CommandFailed(list(argv), process.returncode, text, hint=hint)
    return Completed(stdout, text, process.returncode)


@contextlib.contextmanager
def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.PIPE,
    pass_fds: Sequence[int] = (),
    grouped: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command for the length of a `with`; it never outlives it (terminate, wait, kill).

    Sandboxed children die with this process, however early that is killed. A `grouped` sandbox has
    limits as a whole, where the host lets galleria make control groups: 30 ms more.
    """
    command, leash = list(argv), contextlib.ExitStack()
    try:
        if Path(command[0]).name in SANDBOXES:
            command, pass_fds = _leashed(command, pass_fds, leash, grouped=grouped)
        process = subprocess.Popen(  # noqa: S603 - argv lists only, never a shell
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment(env),
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except BaseException as error:
        leash.close()
        if not isinstance(error, FileNotFoundError):
            raise
        raise EnvironmentMissing(
            f"the program {argv[0]} is not installed", hint="galleria doctor lists what is missing"
        ) from None
    with leash:
        try:
            yield process
        finally:
            stop(process)


def _leashed(
    argv: list[str], pass_fds: Sequence[int], leash: contextlib.ExitStack, *, grouped: bool
) -> tuple[list[str], tuple[int, ...]]:
    """How a sandbox is started, and with which descriptors; `leash` ends it when it is closed."""
    watched, held = os.pipe()
    leash.callback(os.close, held)
    leash.callback(os.close, watched)
    descriptors, groups = (*pass_fds, watched), ""
    if Path(argv[0]).name == "bwrap":
        from adapters.process.confinement import confinement  # which starts programs itself

        confined = leash.enter_context(confinement(argv[0]))
        own = argv[: argv.index("--")] if "--" in argv else argv
        files = [int(number) for word, number in pairwise(own) if word == "--ro-bind-fd"]
        argv = [*confined.before, argv[0], *confined.options, *argv[1:]]
        descriptors += (*confined.descriptors, *files)
        if grouped:
            groups = " ".join(map(str, leash.enter_context(cgroup.group())))
    return ["/bin/bash", "-c", LEASH, "bash", str(watched), groups, *argv], descriptors


def detach(argv: Sequence[str], *, log: Path) -> None:
    """Start a process that outlives this one, in the caller's environment; it writes to `log`."""
    with log.open("ab") as output:
        # setsid --fork: the process is init's child at once, so nobody has to wait for it
        subprocess.run(  # noqa: S603 - argv lists only, never a shell
            ["/usr/bin/setsid", "--fork", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=True,
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a child and whatever it started: SIGTERM to its group, then SIGKILL after a grace
    period."""
    if process.poll() is None:
        _end_sandbox(process)
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
                break
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _end_sandbox(process: subprocess.Popen[bytes]) -> None:
    """End what is inside of a sandbox that may just be starting.

    bubblewrap asks for the signal at its parent's death only after it was forked: with its parent
    gone before that, it would live on. So the one outside is halted, that it forks no more; its
    child is killed, with which the whole namespace ends, and the group that both begin in.
    """
    argv = process.args
    if not isinstance(argv, list) or "bwrap" not in (Path(word).name for word in argv[:9]):
        return
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        for child in children.read_text().split():
            os.kill(int(child), signal.SIGKILL)
        os.killpg(process.pid, signal.SIGKILL)


def wait_for(path: Path, process: subprocess.Popen[bytes], timeout: float) -> bool:
    """Wait until a child has made `path` (a socket, say). False when it ended or time ran out
    first."""
    deadline = time.monotonic() + timeout
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True
