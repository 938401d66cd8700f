"""The error tree: each class owns a stable code and exit status; each error says what, where and
what to do.

Exit statuses (`galleria guide errors`): 1 failed, 2 usage, 3 environment, 4 not found, 5 conflict,
6 refused, 7 partial, 8 no space, 130 interrupted. `http_status` is what a server would answer: 507
for NoSpace; 500 for PartiallyReplicated and EnvironmentMissing, as for all that the caller can't
mend.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar


class GalleriaError(Exception):
    """Something galleria can explain.

    `message` says what happened and where, `hint` what the user can do about it. The code is what
    scripts match on (`--json` prints it); it never changes once released. Where message and code
    are Azure's, `plain` says the same to a person.
    """

    code: ClassVar[str] = "Failed"
    exit_status: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "", code: str = "", plain: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.plain = plain or message
        self.hint = hint
        self.reason = code or self.code

    def document(self) -> dict[str, str]:
        """As JSON data."""
        return {
            "code": self.reason,
            "message": self.message,
            "plain": self.plain,
            "hint": self.hint,
        }


class StageFailed(GalleriaError):
    """A stage began and could not finish; the source is as it was."""

    code = "StageFailed"


class NotBegun(GalleriaError):
    """A build of a batch was not begun, or was stopped, as another one failed."""

    code = "NotBegun"


class VerificationFailed(GalleriaError):
    """Bytes that were written do not read back as their digest says."""

    code = "VerificationFailed"


class SourceChanged(GalleriaError):
    """The source was written to while it was read: no point in time can be published."""

    code = "SourceChanged"


class InvalidParameter(GalleriaError):
    """An argument, a property or a build spec is not what the rules allow."""

    code = "InvalidParameter"
    exit_status = 2
    http_status = 400


class DescriptionInvalid(InvalidParameter):
    """A VM's description is not what its format allows, or says what galleria does not take."""

    code = "DescriptionInvalid"


class EnvironmentMissing(GalleriaError):
    """A tool, a kernel feature or a permission that the job needs is not on this host."""

    code = "EnvironmentMissing"
    exit_status = 3


class ConnectionLost(EnvironmentMissing):
    """The connection to the catalog's server ended in a transaction: nobody knows whether that was
    committed."""

    code = "ConnectionLost"


class CommandFailed(GalleriaError):
    """A subprocess ended with an error; carries its argv, exit status and last lines of stderr."""

    code = "CommandFailed"

    def __init__(self, argv: list[str], status: int, stderr: str, *, hint: str = "") -> None:
        tail = stderr.strip()[-2000:]
        ended = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
        super().__init__(f"{argv[0]} {ended}" + (f": {tail}" if tail else ""), hint=hint)
        self.argv = argv
        self.status = status
        self.stderr = stderr


class NotFound(GalleriaError):
    """The named thing does not exist, or the caller may not see it.

    `named` is the name of a gallery, a definition or a version that was asked for.
    """

    code = "NotFound"
    exit_status = 4
    http_status = 404
    named: object = None


class Conflict(GalleriaError):
    """The named thing exists already, is in use, or is being worked on by another process."""

    code = "Conflict"
    exit_status = 5
    http_status = 409


class Busy(Conflict):
    """Another process holds it for now: trying again may help."""

    code = "Busy"


class HeldByRun(Conflict):
    """Another run works on it. `free_in` is when its work can be taken over if it is not heard of
    meanwhile, in seconds; None: as far as is known it goes on. `run` and `heard` tell which, and
    when it was heard of last."""

    code = "Conflict"

    def __init__(
        self, message: str, *, run: str, heard: object, free_in: float | None, **words: str
    ) -> None:
        super().__init__(message, **words)
        self.run = run
        self.heard = heard
        self.free_in = free_in


class LeaseLost(Conflict):
    """Another process has taken over what this one worked on, as it was not heard of for so long
    that it counted as dead."""

    code = "LeaseLost"


class RunCancelled(GalleriaError):
    """Somebody cancelled the run: galleria runs cancel."""

    code = "Cancelled"


class TooManyRequests(Busy):
    """A source wants to be asked less often."""

    code = "TooManyRequests"
    http_status = 429


class Refused(GalleriaError):
    """A rule or the safety of the host forbids it."""

    code = "Refused"
    exit_status = 6
    http_status = 403


class AuthorizationFailed(Refused):
    """The caller sees the thing, but has no role that allows what it asks."""

    code = "AuthorizationFailed"


class Unauthenticated(Refused):
    """Nobody knows who the caller is: what it shows is no valid token or secret."""

    code = "InvalidAuthenticationToken"
    http_status = 401


class UnsafeImage(Refused):
    """An image file that references other files, lies about its format or exceeds its limits."""

    code = "UnsafeImage"


class PartiallyReplicated(GalleriaError):
    """Some regions completed, others failed; the version is usable where it completed."""

    code = "PartiallyReplicated"
    exit_status = 7


class NoSpace(GalleriaError):
    """A file system has, or would have, no room for what must be written."""

    code = "NoSpace"
    exit_status = 8
    http_status = 507


@contextmanager
def undone_by(undo: Callable[[], object]) -> Iterator[None]:
    """Call `undo` when the `with` fails. The first error counts: what can't be undone now is left
    to the next run, which finds it."""
    try:
        yield
    except BaseException:
        with suppress(GalleriaError, OSError):
            undo()
        raise
