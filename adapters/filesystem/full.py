"""A file system that is full: found out and told once, for all who write."""

import contextlib
import errno
import os
from collections.abc import Iterator

from pipeline.errors import CommandFailed, NoSpace


def is_full(error: BaseException) -> bool:
    """Whether a call or a tool failed because a file system has no room."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, CommandFailed) and os.strerror(errno.ENOSPC) in error.stderr


@contextlib.contextmanager
def room(place: str, hint: str) -> Iterator[None]:
    """Turn "no space left" into an error that names the place: `the zone /a`, `/out`."""
    try:
        yield
    except (OSError, CommandFailed) as error:
        if not is_full(error):
            raise
        raise NoSpace(f"the file system of {place} is full", hint=hint) from error
