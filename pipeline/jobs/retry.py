"""Retry: which errors may pass by themselves, and how long to wait for it."""

import errno
from collections.abc import Mapping

from pipeline.errors import Busy, CommandFailed
from pipeline.jobs.context import JobContext

DELAYS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds; a minute in all

_PASSING = {
    errno.EIO,  # a cable, a multipath switch, a storage server that restarts
    errno.EBUSY,
    errno.EAGAIN,
    errno.EINTR,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNREFUSED,
    errno.ECONNABORTED,
    errno.ENOTCONN,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.EPIPE,
}
# what tools say of the same; C library messages in the C locale
_WORDS = ("Input/output error", "Device or resource busy", "Connection", "lock", "timed out")


def transient(error: BaseException | None) -> bool:
    """Whether trying again later may help. A full disk, damage and a refusal stay as they are."""
    while error is not None:
        if isinstance(error, Busy):
            return True
        if isinstance(error, OSError) and error.errno in _PASSING:
            return True
        if isinstance(error, CommandFailed) and any(word in error.stderr for word in _WORDS):
            return True
        error = error.__cause__
    return False


def pause(seconds: float, errors: Mapping[str, Exception], context: JobContext) -> None:
    """Say what is waited for, and wait."""
    for region, error in errors.items():
        context.progress.note(f"{region}: {error}; trying again in {seconds:.0f} s")
    context.sleep(seconds)
