"""System calls of a job that fail, by strace (its -e inject): also in the job's threads and in the
tools that it starts."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adapters.cli import explain

ATTACHING = 10.0  # seconds
UNTOLD = 99


@dataclass(frozen=True)
class Fault:
    """The calls of this name fail with an error: in every thread and process the `when`-th."""

    call: str
    error: str
    when: int

    def __str__(self) -> str:
        return f"{self.call} {self.error} {self.when}"


@dataclass(frozen=True)
class Outcome:
    """How a job ended: the exit status and message that the command line would give it; and which
    calls failed."""

    status: int
    message: str
    failed: tuple[str, ...]


def under(fault: Fault, job: Callable[[], object], log: Path) -> Outcome:
    """Do a job in a forked process whose calls fail; it is traced from its first instruction."""
    told = log.with_suffix(".told")
    pid = os.fork()
    if pid == 0:
        _child(job, told)
    os.waitpid(pid, os.WUNTRACED)
    command = ["strace", "-f", "-qq", "-o", str(log), "-p", str(pid)]
    command += ["-e", f"trace={fault.call}"]
    if fault.call == "write":  # tools wake their threads by it: they would wait, not fail
        command += ["-b", "execve"]
    command += ["-e", f"inject={fault.call}:error={fault.error}:when={fault.when}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        try:
            _wait_for_tracer(pid, strace)
        finally:
            os.kill(pid, signal.SIGCONT)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        strace.communicate()
    calls = re.findall(r"^\d+ +(.*\(INJECTED\))$", log.read_text(errors="replace"), re.M)
    return Outcome(status, told.read_text(errors="replace"), tuple(calls))


def _child(job: Callable[[], object], told: Path) -> None:
    """The forked half: waits for the tracer, does the job, and never returns."""
    status = UNTOLD
    file = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.kill(os.getpid(), signal.SIGSTOP)
    try:
        job()
        status = 0
    except Exception as error:
        known = explain(error)
        status = known.exit_status
        for _ in range(3):  # what fails once may be this very call
            with contextlib.suppress(OSError):
                if os.pwrite(file, known.plain.encode(errors="replace"), 0):
                    break
    finally:
        os._exit(status)


def _wait_for_tracer(pid: int, strace: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + ATTACHING
    while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
        if strace.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"strace did not attach to process {pid}")
        time.sleep(0.005)
