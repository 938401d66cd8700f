"""What is measured on: a real Debian system on a disk, in every format and in three versions;
random bytes; and the same system scattered over 2 TiB.

Each file is made once, when it is first asked for, and kept, with what it holds beside it:

    CACHE/bench/<scale>-<digest of the recipe>/
        v1.raw                     the system: ext4 on an MBR disk, as the test guest is made
        v2.raw v3.raw              v1 after about 3 and 15 % of its data were changed, see `upgrade`
        v1.qcow2 v1.vhd ...        v1 in every format, by qemu-img
        overlay.qcow2              generalized by galleria on v1.raw; generalized.raw is what must
                                   come of it, by qemu-img and the list of free ranges
        random.raw sparse.raw
        <file>.json                size, data, digest
"""

import fcntl
import hashlib
import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixtures import debian, dirty
from fixtures.disk import Layout, write_os_disk
from pipeline.ports import Chain, ImageFormat, Layer
from pipeline.ports.extents import Range
from tests.bench.generalizing import generalize_once

RECIPE = 1  # goes up when this module makes other data
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40
BLOCK = 64 << 10  # of digests: what is zero in such a block does not count
PAGE = 4096
GRAINS = (PAGE, 64 << 10, 256 << 10, MIB)  # how finely a change is counted

# beside the test guest's own: the tools of a build server, about 1 GiB in all
PACKAGES = ("build-essential", "git", "golang-1.19-go", "cmake", "gdb")


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured on. `packages` None: no Debian, but files of noise, for the test of the
    suite itself. `disk` is the length of the file systems' one disk. Of the files' bytes, `small`
    and `large` are rewritten: with what the file system itself writes about 3 and 15 % of the data.
    """

    name: str
    packages: tuple[str, ...] | None
    virtual_size: int
    random: int
    sparse: int
    disk: int
    small: float = 0.025
    large: float = 0.14


FULL = Scale("full", PACKAGES, 8 * GIB, 4 * GIB, 2 * TIB, 6 * GIB)
QUICK = Scale("quick", (), 2 * GIB, GIB // 2, 2 * TIB, 3 * GIB, small=0.01)
TINY = Scale("tiny", None, 64 * MIB, 16 * MIB, 16 * GIB, 400 * MIB)
SCALES = {scale.name: scale for scale in (FULL, QUICK, TINY)}

# The formats: driver of qemu, its options for a new file, flags.
CONVERSIONS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "v1.qcow2": ("qcow2", "", ()),
    "v1.vhd": ("vpc", "subformat=dynamic,force_size=on", ()),
    "v1.vhdx": ("vhdx", "subformat=dynamic", ()),
    "v1.vmdk": ("vmdk", "subformat=monolithicSparse", ()),
    "v1.zlib.qcow2": ("qcow2", "compression_type=zlib", ("-c",)),
    "v1.zstd.qcow2": ("qcow2", "compression_type=zstd", ("-c",)),
    "v1.stream.vmdk": ("vmdk", "subformat=streamOptimized", ()),
}
FORMATS = {
    ".raw": ImageFormat.RAW,
    ".qcow2": ImageFormat.QCOW2,
    ".vhd": ImageFormat.VHD,
    ".vhdx": ImageFormat.VHDX,
    ".vmdk": ImageFormat.VMDK,
}


class Data:
    """The files of one scale, in the cache. They are read only."""

    def __init__(self, scale: Scale, cache: Path) -> None:
        self.scale = scale
        self.directory = cache / f"{scale.name}-{_recipe(scale)}"
        self.directory.mkdir(parents=True, exist_ok=True)

    def file(self, name: str) -> Path:
        """A file by its name, made now if need be; one process at a time."""
        path = self.directory / name
        if not path.exists():
            for needed in _needs(name):
                self.file(needed)
            with self._lock(), self._staging() as work:
                if not path.exists():
                    self._make(name, work / name)
                    (work / name).rename(path)
        return path

    def store(self, name: str, make: Callable[[Path, Path], None]) -> Path:
        """A directory in which `make` (which is given v1 and the directory) has stored v1."""
        path, source = self.directory / name, self.file("v1.raw")
        if not path.exists():
            with self._lock(), self._staging() as work:
                (work / name).mkdir()
                make(source, work / name)
                (work / name).rename(path)
        return path

    def chain(self, name: str) -> Chain:
        """The layers of a disk by the name of its top file."""
        path = self.file(name)
        top = Layer(path, FORMATS[path.suffix])
        if name == "overlay.qcow2":
            return (top, Layer(self.file("v1.raw"), ImageFormat.RAW))
        return (top,)

    def content(self, name: str) -> Chain:
        """The raw disk that galleria has to make of a disk."""
        if name == "overlay.qcow2":
            return self.chain("generalized.raw")
        return self.chain(name if name.endswith(".raw") else "v1.raw")

    def free(self) -> tuple[Range, ...]:
        """The ranges that the overlay's guest reports free."""
        self.file("overlay.qcow2")
        found = json.loads((self.directory / "free.json").read_text())
        return tuple(Range(start, length) for start, length in found)

    def facts(self, name: str) -> dict[str, Any]:
        """What a file holds; `changed`, of a later version, is bytes by grain, against v1."""
        path = self.file(name)
        record = self.directory / f"{name}.json"
        if not record.exists():
            facts: dict[str, Any] = {
                "virtual_size": path.stat().st_size,
                "allocated": path.stat().st_blocks * 512,
            }
            if path.suffix == ".raw":
                facts |= digest_of(path)
            if name in ("v2.raw", "v3.raw"):
                facts["changed"] = changes(self.file("v1.raw"), path)
            record.write_text(json.dumps(facts, indent=2))
        found = json.loads(record.read_text())
        assert isinstance(found, dict)
        return found

    def made(self) -> dict[str, Any]:
        """The facts of all files that are there."""
        names = [p.name for p in sorted(self.directory.iterdir()) if p.suffix in FORMATS]
        return {name: self.facts(name) for name in names}

    def _make(self, name: str, path: Path) -> None:
        makers: dict[str, Callable[[Path], None]] = {
            "v1.raw": self._system,
            "v2.raw": lambda p: self._changed(p, self.scale.small, seed=2),
            "v3.raw": lambda p: self._changed(p, self.scale.large, seed=3),
            "random.raw": self._random,
            "sparse.raw": self._sparse,
            "overlay.qcow2": self._overlay,
            "generalized.raw": self._generalized,
        }
        if name in CONVERSIONS:
            driver, options, flags = CONVERSIONS[name]
            argv = ["qemu-img", "convert", "-f", "raw", "-O", driver, *flags]
            argv += ["-o", options] if options else []
            _run(*argv, str(self.file("v1.raw")), str(path))
        else:
            makers[name](path)

    def _system(self, path: Path) -> None:
        layout = Layout("V1", self.scale.virtual_size)
        with tempfile.TemporaryDirectory(dir=path.parent) as name:
            tree = Path(name) / "tree"
            tree.mkdir()
            if self.scale.packages is None:
                _noise(tree)
            else:
                archive = debian.pristine_tree(self.scale.packages)
                _run("tar", "-x", "--numeric-owner", "--exclude=./dev/*", "-f", str(archive),
                     "-C", str(tree))  # fmt: skip
                dirty.dirty(tree)
            write_os_disk(path, tree, layout, Path(name))

    def _changed(self, path: Path, part: float, *, seed: int) -> None:
        _run("cp", "--sparse=always", str(self.file("v1.raw")), str(path))
        offset = Layout("V1", self.scale.virtual_size).root_offset
        mountpoint = path.parent / "root"
        mountpoint.mkdir()
        _run("mount", "-o", f"loop,offset={offset}", str(path), str(mountpoint))
        try:
            upgrade(mountpoint, part, seed)
        finally:
            _run("umount", str(mountpoint))

    def _random(self, path: Path) -> None:
        noise = random.Random(4)  # noqa: S311 - the same bytes on every run, nothing secret
        with path.open("wb") as file:
            for _ in range(self.scale.random // MIB):
                file.write(noise.randbytes(MIB))

    def _sparse(self, path: Path) -> None:
        """v1 in pieces, evenly over a disk that is so much larger."""
        source, pieces = self.file("v1.raw"), 128
        length, step = self.scale.virtual_size // pieces, self.scale.sparse // pieces
        with source.open("rb") as reading, path.open("wb") as file:
            file.truncate(self.scale.sparse)
            for start, data in data_blocks(reading.fileno(), source.stat().st_size, MIB):
                piece, within = divmod(start, length)
                file.seek(piece * step + within)
                file.write(data)

    def _overlay(self, path: Path) -> None:
        bottom = Layer(self.file("v1.raw"), ImageFormat.RAW)
        free = generalize_once(bottom, path) if self.scale.packages is not None else ()
        if self.scale.packages is None:
            _run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(bottom.path),
                 str(path))  # fmt: skip
            _run("qemu-io", "-f", "qcow2", "-c", "write -q -P 0xab 3M 64k", str(path))
        ranges = json.dumps([(area.start, area.length) for area in free])
        (self.directory / "free.json").write_text(ranges)

    def _generalized(self, path: Path) -> None:
        _run("qemu-img", "convert", "-O", "raw", named(self.chain("overlay.qcow2")), str(path))
        zeros = bytes(MIB)
        with path.open("r+b") as file:
            for area in self.free():
                file.seek(area.start)
                left = area.length
                while left:
                    left -= file.write(zeros[: min(left, MIB)])
        _run("fallocate", "--dig-holes", str(path))

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.directory / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        directory = Path(tempfile.mkdtemp(prefix="staging-", dir=self.directory))
        try:
            yield directory
        finally:
            shutil.rmtree(directory)


def _needs(name: str) -> Sequence[str]:
    """What has to be there before the lock is taken for a file."""
    if name in ("v1.raw", "random.raw"):
        return ()
    return ("v1.raw", "overlay.qcow2") if name == "generalized.raw" else ("v1.raw",)


def _recipe(scale: Scale) -> str:
    lengths = (scale.virtual_size, scale.random, scale.sparse)
    recipe = repr((RECIPE, scale.packages, lengths, scale.small, scale.large, CONVERSIONS))
    digest = hashlib.blake2s(recipe.encode(), digest_size=6)
    for name in debian.RECIPE_FILES:
        digest.update((Path(debian.__file__).parent / name).read_bytes())
    return digest.hexdigest()


# --- changing a system ---------------------------------------------------------------------------


def upgrade(root: Path, part: float, seed: int) -> None:
    """Change a mounted system as an upgrade does: packages in a random order, each of their files
    written anew under a temporary name and renamed over the old one, as dpkg does, until `part` of
    the bytes of all files are other bytes; their lists, dpkg's status and the logs are touched."""
    noise = random.Random(seed)  # noqa: S311 - the same choice on every run
    mapping = bytes((value + 1 + seed) % 256 for value in range(256))
    lists = sorted((root / "var/lib/dpkg/info").glob("*.list"))
    noise.shuffle(lists)
    every = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    budget = part * sum(path.stat().st_size for path in every)
    if not lists:  # not a Debian: any files
        noise.shuffle(every)
    groups = [[root / line[1:] for line in one.read_text().splitlines()] for one in lists]
    for files in groups or [[path] for path in every]:
        for path in files:
            if path.is_symlink() or not path.is_file():
                continue
            if budget <= 0:
                break
            content = path.read_bytes().translate(mapping)
            fresh = path.with_name(f"{path.name}.dpkg-new")
            fresh.write_bytes(content)
            shutil.copystat(path, fresh)
            fresh.replace(path)
            budget -= len(content)
    for name in ("var/log/dpkg.log", "var/lib/dpkg/status"):
        if (root / name).is_file():
            with (root / name).open("a") as log:
                log.write(f"2026-01-0{seed} 00:00:00 status installed\n" * 400)


def _noise(tree: Path) -> None:
    """16 MiB in files, and what the boot loader wants."""
    noise = random.Random(1)  # noqa: S311 - the same bytes on every run
    (tree / "boot/grub").mkdir(parents=True)
    (tree / "boot/grub/grub.cfg").write_text("set timeout=0\n")
    for number in range(64):
        (tree / f"file-{number}").write_bytes(noise.randbytes(MIB // 4))


# --- reading without galleria --------------------------------------------------------------------


def become(path: Path, other: Path) -> None:
    """Write to `path`, in place, the blocks in which `other`, of the same length, differs."""
    with path.open("r+b", buffering=0) as file, other.open("rb", buffering=0) as reading:
        one, two, length = file.fileno(), reading.fileno(), path.stat().st_size
        starts = {start for fd in (one, two) for start, _ in data_blocks(fd, length, MIB)}
        for start in sorted(starts):
            old, new = os.pread(one, MIB, start), os.pread(two, MIB, start)
            for at in range(0, len(new) if old != new else 0, PAGE):
                if old[at : at + PAGE] != new[at : at + PAGE]:
                    os.pwrite(one, new[at : at + PAGE], start + at)


def data_blocks(fd: int, length: int, size: int) -> Iterator[tuple[int, bytes]]:
    """The aligned blocks of `size` bytes of a file that are not in holes, and not all zero."""
    zeros, position = bytes(size), 0
    while position < length:
        try:
            data = os.lseek(fd, position, os.SEEK_DATA)
        except OSError:  # no more data
            return
        end = os.lseek(fd, data, os.SEEK_HOLE)
        for at in range(max(data // size * size, position), end, size):
            block = os.pread(fd, size, at)
            if block != zeros[: len(block)]:
                yield at, block
        position = -(-end // size) * size


def digest_of(path: Path) -> dict[str, Any]:
    """A name for a raw file's content that does not depend on where it has holes: SHA-256 over the
    offset (u64, little-endian) and bytes of every 64 KiB block that is not zero."""
    digest, amount = hashlib.sha256(path.stat().st_size.to_bytes(8, "little")), 0
    with path.open("rb") as file:
        for at, block in data_blocks(file.fileno(), path.stat().st_size, BLOCK):
            digest.update(at.to_bytes(8, "little"))
            digest.update(block)
            amount += len(block)
    return {"sha256_of_data": digest.hexdigest(), "data": amount}


def changes(old: Path, new: Path) -> dict[str, int]:
    """The bytes of `new` that lie in blocks which differ from `old`, by the length of the block."""
    found = dict.fromkeys(map(str, GRAINS), 0)
    with old.open("rb") as before, new.open("rb") as after:
        length = new.stat().st_size
        for at, block in data_blocks(after.fileno(), length, MIB):
            was = os.pread(before.fileno(), MIB, at)
            if was == block:
                continue
            for grain in GRAINS:
                pieces = range(0, MIB, grain)
                found[str(grain)] += sum(
                    len(block[p : p + grain])
                    for p in pieces
                    if block[p : p + grain] != was[p : p + grain]
                )
    return found


def named(chain: Chain) -> str:
    """A disk as qemu's tools are told of it: every layer and its format explicit."""
    drivers = {ImageFormat.VHD: "vpc"}
    node: dict[str, Any] = {}
    for layer in reversed(chain):
        below = node
        node = {
            "driver": drivers.get(layer.format, layer.format.value),
            "file": {"driver": "file", "filename": str(layer.path)},
        }
        if layer.format is ImageFormat.VHD:
            node["force_size_calc"] = "current_size"
        if below:
            node["backing"] = below
    return f"json:{json.dumps(node)}"


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
