"""Files that are handed out: complete and durable under their names, or not there."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from adapters.filesystem import durable, modes
from adapters.filesystem.full import is_full
from pipeline.errors import CommandFailed, Conflict, InvalidParameter, NoSpace


def check_target(path: Path) -> None:
    """Raise before any work if a file can't be made there."""
    if path.exists():
        raise Conflict(f"{str(path)!r} exists already", hint="choose another name, or remove it")
    if not path.parent.is_dir():
        raise InvalidParameter(f"no such directory: {path.parent}")


@contextlib.contextmanager
def committed(path: Path, sources: Iterable[Path]) -> Iterator[Path]:
    """A private path to write to; on leaving without an error it is durable and named `path`, for
    nobody who may not read the `sources`."""
    check_target(path)
    with tempfile.TemporaryDirectory(prefix=".galleria-", dir=path.parent) as name:
        temporary = Path(name) / path.name
        try:
            yield temporary
            group = temporary.stat().st_gid
            temporary.chmod(modes.outgoing(group, [source.stat() for source in sources]))
            durable.sync_file(temporary)
        except (OSError, CommandFailed) as error:
            if is_full(error):
                raise NoSpace(f"no space left for {str(path)!r}") from error
            raise
        try:
            durable.rename_new(temporary, path)
        except FileExistsError:
            raise Conflict(f"{str(path)!r} was made by someone else meanwhile") from None
    durable.sync_directory(path.parent)
