"""The command line: `galleria`. This module starts it and turns errors into words and statuses.

Results go to stdout, everything else to stderr. Nothing is imported before it is needed:
`galleria --help` must stay under 0.25 s of CPU.
"""

import contextlib
import errno
import gc
import io
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

import click

from adapters.cli.commands import cli
from adapters.cli.context import Settings
from adapters.cli.lazy import PipeBroken
from adapters.filesystem import modes
from adapters.filesystem.full import is_full
from adapters.text import printable
from pipeline.errors import EnvironmentMissing, GalleriaError, InvalidParameter, NoSpace

# Objects that are made before garbage is looked for. By Python's own 700 that is done hundreds of
# times while modules are loaded, in vain: a tenth of what it takes to start.
GARBAGE = 20_000

INTERRUPTED = 130
OUTPUT_CLOSED = 141
TERMINATED = 143

# The guide `errors` is made from this; a test compares it with the errors of the pipeline.
EXIT_STATUSES = {
    0: "done",
    1: "failed: a stage, a verification or a tool",
    2: "usage: arguments, configuration or build spec are not valid",
    3: "the environment lacks something: galleria doctor says what",
    4: "not found",
    5: "conflict: it exists already, is in use, or another process works on it",
    6: "refused by a rule, or as unsafe",
    7: "partial: some regions failed; the same command tries them again",
    8: "no space",
    INTERRUPTED: "interrupted; the same command continues",
    OUTPUT_CLOSED: "the reader of the output has gone",
    TERMINATED: "terminated by SIGTERM or SIGHUP; the same command continues",
}


class _Terminated(BaseException):
    """SIGTERM or SIGHUP: unwind, so that what was begun is cleaned up."""


class _Usage(InvalidParameter):
    """A command line that is not as the command's help says."""

    code = "Usage"


def main() -> None:
    """Run the command line of this process, and exit."""
    gc.set_threshold(GARBAGE)
    mend_streams()
    status = run(sys.argv[1:])
    # All that was loaded is let go with the process. Without this, Python looks for garbage in it
    # first: a sixth of what a short command takes.
    gc.freeze()
    sys.exit(status)


def mend_streams() -> None:
    """Let standard streams that the caller closed lead nowhere: the next file that is opened, the
    catalog perhaps, would else have the number that errors are written to. Characters that the
    locale does not have are escaped: they are no reason to fail a job that is done."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def run(args: Sequence[str]) -> int:
    """Run one command line; returns its exit status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    # known before parsing, as parsing may be what fails
    settings = Settings(
        json="--json" in args,
        verbose="--verbose" in args,
        detailed="--detailed-exitcode" in args,
    )
    try:
        with modes.private():
            status = cli.main(list(args), prog_name="galleria", standalone_mode=False, obj=settings)
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        return _stopped("interrupted", INTERRUPTED)
    except _Terminated:
        return _stopped("terminated", TERMINATED)
    except (PipeBroken, BrokenPipeError) as error:
        return OUTPUT_CLOSED if _output_closed() else _report(error, settings)
    except SystemExit as ended:
        if not ended.code:  # the shell was told what completes a line
            return 0
        # click's own help could not be written, and it has made stdout deaf
        _silence()
        return OUTPUT_CLOSED
    except Exception as error:
        return _report(error, settings)
    return status if isinstance(status, int) else 0


def explain(error: BaseException) -> GalleriaError:
    """Any error as one that says what happened and what to do."""
    if isinstance(error, GalleriaError):
        return error
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "galleria"
        missing = isinstance(error, click.exceptions.NoArgsIsHelpError)
        message = "a command is missing" if missing else error.format_message()
        return _Usage(message, hint=f"{command} --help")
    if isinstance(error, click.ClickException):
        return _Usage(error.format_message())
    if is_full(error):
        return NoSpace(str(error), hint="free some space, then run the same command again")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return EnvironmentMissing(
            f"{error.filename or 'a file'}: {error.strerror}",
            hint="check its owner and mode, or run galleria as a user who may",
        )
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return EnvironmentMissing(
            f"no more files can be opened: {error.strerror}",
            hint="raise the limit (ulimit -n 1024), then run the same command again",
        )
    if isinstance(error, OSError) and error.errno in (errno.EISDIR, errno.ENOTDIR, errno.ELOOP):
        return InvalidParameter(f"{error.filename or 'a path'}: {error.strerror}")
    if isinstance(error, OSError):
        return GalleriaError(str(error), hint="galleria --verbose ... shows where it happened")
    return GalleriaError(
        f"unexpected {type(error).__name__}: {error}",
        hint="this is a mistake in galleria: galleria --verbose ... shows where it happened",
    )


def _report(error: Exception, settings: Settings) -> int:
    known = explain(error)
    say_error(error, settings)
    if settings.json:
        try:
            settings.emit_json({"error": known.document()})
            sys.stdout.flush()
        except OSError:  # the status says that it failed, and who reads it knows no more
            _silence()
    return settings.status(known)


def say_error(error: Exception, settings: Settings, label: str = "") -> None:
    """Say on stderr what happened and what to do; `label`, of what."""
    if settings.verbose:
        _say("\n".join(printable(line) for line in _traceback(error)))
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        _say(error.message)
    known = explain(error)
    azure = known.plain != known.message
    told = f"{printable(label)}{_lines(known.plain)}"
    _say(f"galleria: error: {told}" + f" ({known.reason})" * azure)
    if azure and settings.verbose:
        _say(f"azure: {_lines(known.message)}")
    if known.hint:
        _say(f"hint: {_lines(known.hint)}")


def _traceback(error: Exception) -> list[str]:
    return [line for part in traceback.format_exception(error) for line in part.splitlines()]


def _lines(text: str) -> str:
    """Escaped, but for the line breaks of an error that lists several things."""
    return "\n  ".join(printable(line) for line in text.split("\n"))


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads it: the status remains
        print(line, file=sys.stderr)


def _stopped(how: str, status: int) -> int:
    _say(f"galleria: {how}; the same command continues or begins again")
    return status


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def _output_closed() -> bool:
    """Whether stdout's reader has gone: asked of the kernel, as Python's buffers may know nothing
    of it any more."""
    poll = select.poll()
    poll.register(1, 0)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    _silence()
    return True


def _silence() -> None:
    """Let what is still buffered for stdout go nowhere."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.close(descriptor)
