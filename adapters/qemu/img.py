"""qemu-img, always in the sandbox and never probing: every image is named by an explicit node tree.

A node tree says, for each layer of a chain, its driver, its file and what lies below it (null at
the bottom), so no header of an image can make qemu open anything else. An external qcow2 data file
is the one reference that a node tree can't rule out: inspection refuses it, and the sandbox shows
no file but the chain's.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from adapters.process import command
from adapters.process.sandbox import Sandbox
from pipeline.data.extents import SECTOR
from pipeline.errors import CommandFailed, InvalidParameter, StageFailed, UnsafeImage
from pipeline.ports import Chain, ImageFormat
from pipeline.ports.extents import Extent, Kind

# a conversion may take hours, but its memory is bounded by a few hundred in-flight requests
WORKING = command.Limits(address_space=4 << 30)
# glibc reserves 64 MiB of address space per arena and thread: with two, the limit is about use
ENVIRONMENT = {"MALLOC_ARENA_MAX": "2"}

# bytes of a map, of any image and for each byte of its files: a quarter of a million ranges
MAP_LIMIT, MAP_SHARE = 32 << 20, 32

# qcow2 specification, header bytes 16-19: "Maximum length of the backing file name is 1023 bytes".
BACKING_NAME_LIMIT = 1023
# qcow2 clusters: qemu allows 512 bytes to 2 MiB
CLUSTER_SIZES = tuple(1 << bits for bits in range(9, 22))


def node(chain: Chain, sandbox: Sandbox, *, writable: bool = False) -> dict[str, object]:
    """The explicit node tree of a chain; only the top layer can be writable."""
    below: dict[str, object] | None = None
    for depth in range(len(chain) - 1, -1, -1):
        layer = chain[depth]
        tree: dict[str, object] = {"driver": layer.format.qemu_name}
        if layer.format is ImageFormat.VHD:
            # a VHD's length is its Current Size; by its CHS geometry qemu would cut it short
            tree["force_size_calc"] = "current_size"
        file: dict[str, object] = {"driver": "file", "filename": sandbox.name(layer)}
        if not writable or depth:
            tree["read-only"] = True
            file["read-only"] = True
        tree["file"] = file
        if below is not None or layer.format is not ImageFormat.RAW:
            tree["backing"] = below
        below = tree
    if below is None:
        raise InvalidParameter("a disk without layers can't be opened")
    return below


def json_name(tree: dict[str, object]) -> str:
    """The pseudo file name by which qemu takes a node tree, on a command line or in a header."""
    return "json:" + json.dumps(tree, separators=(",", ":"))


def backing_name(chain: Chain, sandbox: Sandbox) -> str:
    """What a qcow2 header stores to depend on `chain`, for readers in the sandbox.

    Without the read-only flags of `node`: qemu opens what lies below an image read-only by itself,
    and a header has room for 1023 bytes (about ten layers).
    """

    def bare(tree: object) -> object:
        if not isinstance(tree, dict):
            return tree
        return {key: bare(value) for key, value in tree.items() if key != "read-only"}

    tree = bare(node(chain, sandbox))
    return "json:" + json.dumps(tree, separators=(",", ":"))


def snapshot_option(name: str) -> str:
    """The value of `-l` that selects an internal snapshot by its name and never by its id."""
    return "snapshot.name=" + name.replace(",", ",,")


def create_qcow2(
    sandbox: Sandbox,
    path: Path,
    virtual_size: int,
    *,
    backing: str | None = None,
    backing_format: str | None = None,
    cluster_size: int = 65536,
    extended_l2: bool = False,
) -> None:
    """Make an empty qcow2 v3 of `virtual_size` bytes at `path`, truncating what is there.

    `backing` is stored verbatim and not opened (a relative name, or a `json:` name); the output
    directory is all that qemu sees. `backing_format` is qemu's driver name and goes with it.
    """
    if virtual_size <= 0 or virtual_size % SECTOR:
        raise InvalidParameter(f"a virtual size must be whole sectors of 512 bytes: {virtual_size}")
    if cluster_size not in CLUSTER_SIZES:
        raise InvalidParameter(f"a qcow2 can't have clusters of {cluster_size} bytes")
    if (backing is None) != (backing_format is None):
        raise InvalidParameter("a backing name and its format go together")
    options = f"compat=1.1,cluster_size={cluster_size}"
    if extended_l2:
        options += ",extended_l2=on"
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", options]
    if backing is not None and backing_format is not None:
        if len(backing.encode()) > BACKING_NAME_LIMIT:
            raise InvalidParameter(
                f"a backing reference of {len(backing.encode())} bytes does not fit into a qcow2",
                hint="the disk has too many layers: make a stand-alone copy of it first",
            )
        argv += ["-u", "-F", backing_format, "-b", backing]
    argv += [sandbox.out(path.parent, path.name), str(virtual_size)]
    _own(path)
    command.run(
        sandbox.wrap(argv, out=path.parent, env=ENVIRONMENT, limits=command.INSPECTION), timeout=60
    )


def _own(path: Path) -> None:
    """Make the file that qemu-img is going to write: what the sandbox itself makes is not the
    caller's, but its own user's."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))


def rebase(sandbox: Sandbox, path: Path, *, backing: str, backing_format: str) -> None:
    """Give a qcow2 another backing reference, stored verbatim; neither the old nor the new one is
    opened."""
    argv = ["qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-F", backing_format, "-b", backing]
    argv.append(sandbox.out(path.parent, path.name))
    command.run(
        sandbox.wrap(argv, out=path.parent, env=ENVIRONMENT, limits=command.INSPECTION), timeout=60
    )


def info(sandbox: Sandbox, chain: Chain) -> dict[str, Any]:
    """`qemu-img info` of the top layer alone: it opens nothing below, and takes no tree for it."""
    return _json(sandbox, chain[:1], ["qemu-img", "info", "--output=json"])


def check(sandbox: Sandbox, chain: Chain) -> dict[str, Any]:
    """`qemu-img check` of the top layer: keys check-errors, corruptions, leaks, ... (absent: 0)."""
    # 2: corrupt, 3: leaked clusters only; both are told in the JSON
    return _json(sandbox, chain, ["qemu-img", "check", "--output=json"], ok=(0, 2, 3))


def _json(
    sandbox: Sandbox, chain: Chain, argv: Sequence[str], ok: Sequence[int] = (0,)
) -> dict[str, Any]:
    argv = sandbox.wrap(
        [*argv, json_name(node(chain, sandbox))],
        read=chain,
        env=ENVIRONMENT,
        limits=command.INSPECTION,
    )
    stdout = command.run(argv, timeout=120, ok=ok).stdout
    try:
        answer = json.loads(stdout)
    except ValueError as error:
        raise StageFailed(f"{argv[-3]} did not answer in JSON: {error}") from None
    if not isinstance(answer, dict):
        raise StageFailed(f"{argv[-3]} did not answer with a JSON object")
    return answer


def map_extents(sandbox: Sandbox, chain: Chain) -> IO[bytes]:
    """Ask qemu once where the bytes of a disk are: an unlinked file, to be read by `parse_map`.

    A file and not a list, so that memory does not grow with the number of extents. Raises
    UnsafeImage when they are more than an honest file of its length has.
    """
    # a range takes some 120 bytes of text, and one of data has at least 4 KiB in the file
    length = MAP_LIMIT + sum(layer.opened.stat().st_size for layer in chain) // MAP_SHARE
    argv = sandbox.wrap(
        ["qemu-img", "map", "--output=json", json_name(node(chain, sandbox))],
        read=chain,
        env=ENVIRONMENT,
        limits=replace(command.INSPECTION, file_size=length),
    )
    # anonymous: the caller closes it, a killed process leaves nothing
    output = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        with command.spawn(argv, stdout=output) as process:
            try:
                _, stderr = process.communicate(timeout=300)
            except subprocess.TimeoutExpired:
                raise StageFailed("qemu-img map did not end within 300 s") from None
        if os.fstat(output.fileno()).st_size >= length:
            raise UnsafeImage(
                f"its map has more than {length >> 20} MiB: far too many ranges for such a file"
            )
        if process.returncode:
            raise CommandFailed(argv, process.returncode, stderr.decode(errors="replace"))
    except BaseException:
        output.close()
        raise
    return output


def parse_map(output: IO[bytes], virtual_size: int) -> Iterator[Extent]:
    """The extents of a map, in order and covering [0, virtual_size).

    qemu-img prints one entry a line (qemu-img.c, dump_map_entry). Its `depth` is the layer, 0 the
    top; `zero` or neither `zero` nor `data` (nothing allocated down to the bottom) reads as zero.
    What lies past `virtual_size` is cut: qemu counts in sectors.
    """
    position = 0
    # a file position of its own: several iterators may be under way
    with Path(f"/proc/self/fd/{output.fileno()}").open("rb") as lines:
        for line in lines:
            text = line.strip().lstrip(b"[").rstrip(b",]")
            if not text or position == virtual_size:
                continue
            extent = _map_entry(text)
            if extent.start != position or extent.length <= 0:
                raise UnsafeImage(f"the map of a disk has a gap or an overlap at byte {position}")
            position = min(extent.end, virtual_size)
            yield extent.part(extent.start, position)
    if position != virtual_size:
        raise UnsafeImage(f"the map of a disk ends at {position} of {virtual_size} bytes")


def _map_entry(text: bytes) -> Extent:
    try:
        entry = json.loads(text)
        start, length = int(entry["start"]), int(entry["length"])
        if entry["zero"] or not entry["data"]:
            return Extent(start, length, Kind.ZERO)
        offset = int(entry["offset"]) if "offset" in entry else None
        return Extent(start, length, Kind.DATA, int(entry["depth"]), offset)
    except (ValueError, KeyError, TypeError) as error:
        raise StageFailed(f"qemu-img map answered with {text[:200]!r}: {error}") from None


def convert(
    sandbox: Sandbox,
    chain: Chain,
    path: Path,
    driver: str,
    *,
    options: Sequence[str] = (),
    compressed: bool = False,
    limits: command.Limits = WORKING,
    timeout: float = 24 * 3600,
) -> None:
    """Write a disk as one stand-alone file of qemu's format `driver` at `path` (not synced).

    A `snapshot` of the top layer is what is read. The target cache is `writeback`: qemu's default
    for conversion, `unsafe`, ignores flushes and write errors that come with them.
    """
    argv = ["qemu-img", "convert", "-q", "-t", "writeback", "-T", "writeback", "-O", driver]
    if options:
        argv += ["-o", ",".join(options)]
    if compressed:
        argv.append("-c")
    if chain[0].internal_snapshot is not None:
        argv += ["-l", snapshot_option(chain[0].internal_snapshot)]
    argv += [json_name(node(chain, sandbox)), sandbox.out(path.parent, path.name)]
    _own(path)
    command.run(
        sandbox.wrap(argv, read=chain, out=path.parent, env=ENVIRONMENT, limits=limits),
        timeout=timeout,
        grouped=True,
    )
