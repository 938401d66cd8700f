"""Archives taken apart by `adapters.sources.unpacker`, a process in the sandbox that sees nothing
but the archive and a new directory.

    galleria --archive--> [gzip, xz, ... in a sandbox] --> parser.py unpacker --> files, JSON

What it says is as untrusted as the archive: names of members only name, and files have to be those
that it was to make.
"""

import contextlib
import os
import re
import stat
import tarfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from adapters.filesystem import durable
from adapters.process import command, parsing
from adapters.process.sandbox import Sandbox
from adapters.sources.archive import LENGTH_LIMIT
from adapters.sources.compression import compression_of, head_of
from adapters.sources.streams import decompressed
from pipeline.errors import UnsafeImage

MEMBERS = "members"  # the directory that it writes in
MEMORY = 768 << 20
# seconds of CPU: some, and a second for so many bytes of the archive, unpacked 400 to one
SECONDS, BYTES = 600, 10 << 20
_LEAF = re.compile(r"disk-\d{1,4}")


def private_directory(work: Path) -> Path:
    """A new directory in `work`, for what an archive holds."""
    path = work / f"archive-{os.urandom(6).hex()}"
    path.mkdir(mode=0o700)
    return path


def discard(path: Path) -> None:
    durable.remove_tree(path)


def only_disk(path: Path, shown: str, into: Path, sandbox: Sandbox) -> tuple[Path, str]:
    """The disk of an archive that holds one, and its name in there."""
    answer = unpacked(path, into, sandbox, "disk", shown)
    try:
        return made(into, "disk-0"), text(answer.get("disk"))
    except (OSError, TypeError) as error:
        raise senseless(error) from None


def unpacked(
    archive: Path | Mapping[str, Path], into: Path, sandbox: Sandbox, question: str, about: str
) -> dict[str, Any]:
    """Have an archive unpacked to files in `into`/members; what is said of it. One that somebody
    has unpacked already is its files, by their names in it. Raises UnsafeImage, DescriptionInvalid
    and NoSpace."""
    out = into / MEMBERS
    out.mkdir(mode=0o700)
    files = [archive] if isinstance(archive, Path) else archive.values()
    length = sum(path.stat().st_size for path in files)
    limits = command.Limits(
        address_space=MEMORY, cpu_seconds=SECONDS + length // BYTES, file_size=LENGTH_LIMIT
    )

    def ask(file: IO[bytes], packed: str) -> dict[str, Any]:
        arguments = [packed, sandbox.out(out, ""), question, about]
        given = parsing.Given(stdin=file, out=out)
        modules = parsing.directories("defusedxml")
        return parsing.ask(
            "adapters.sources.unpacker", arguments, sandbox, given,
            directories=modules, limits=limits, seconds=None,
        )  # fmt: skip

    try:
        if not isinstance(archive, Path):
            with _packed(archive) as file:
                return ask(file, str(length))
        if compression := compression_of(head_of(archive)):
            with decompressed(archive, compression, sandbox) as stream, stream.lent() as file:
                return ask(file, str(length))
        with archive.open("rb") as file:
            return ask(file, "")
    except parsing.Unreadable as error:
        raise UnsafeImage(f"the archive cannot be read: {error}") from None


@contextlib.contextmanager
def _packed(files: Mapping[str, Path]) -> Iterator[IO[bytes]]:
    """The files as the tar that they came from. A reader that ends before says itself why."""
    reading, writing = os.pipe()

    def write() -> None:
        with (
            contextlib.suppress(BrokenPipeError),
            open(writing, "wb") as pipe,  # noqa: PTH123 - a descriptor
            tarfile.open(fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            for name, path in files.items():
                with path.open("rb") as file:
                    member = tarfile.TarInfo(name)
                    member.size = os.fstat(file.fileno()).st_size
                    tar.addfile(member, file)

    thread = threading.Thread(target=write)
    with open(reading, "rb") as file:  # noqa: PTH123 - a descriptor
        thread.start()
        yield file
    thread.join()


def made(into: Path, leaf: str) -> Path:
    """A file that was unpacked: nothing else, whatever the process says that made it."""
    path = into / MEMBERS / leaf
    if not _LEAF.fullmatch(leaf) or not stat.S_ISREG(path.lstat().st_mode):
        raise UnsafeImage("the archive cannot be read: what was made of it is no file")
    return path


def text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} is no text")
    return value


def senseless(error: Exception) -> UnsafeImage:
    reason = f"its reader answered with no sense ({type(error).__name__})"
    return UnsafeImage(f"the archive cannot be read: {reason}")
