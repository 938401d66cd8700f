"""Small image files that were made to cost much: each is refused within 2 s of CPU and 256 MiB, and
what is said of it fits on a screen."""

import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.formats.window import TOLD
from adapters.images import QemuImages
from adapters.process import parser, parsing
from adapters.process.sandbox import Sandbox

pytestmark = [pytest.mark.system, pytest.mark.hostile]

MIB = 1 << 20
CLUSTER = 64 << 10
CPU_SECONDS, MEMORY = 2.0, 256 * MIB
# what a process says of itself at its end: what its parent is told has the parent's memory in it
MEASURED = """
import os, re, runpy, sys, time
leave = os._exit
def told(status):
    memory = re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]
    print(time.process_time(), int(memory) << 10, file=sys.stderr)
    leave(status)
os._exit = told
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def header(path: Path, size: int, options: str = "") -> bytearray:
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", *(["-o", options] if options else [])]
    subprocess.run([*argv, path, str(size)], check=True)
    return bytearray(path.read_bytes())


def snapshots_on_one_table(path: Path) -> None:
    """A thousand snapshots, whose one table of 4 MiB was read a thousand times."""
    data = header(path, 1 << 30)
    table = len(data) + CLUSTER
    entry = struct.pack(">QIHHIIQII", table, (4 * MIB) // 8, 1, 1, 0, 0, 0, 0, 0) + b"12"
    entries = b"".join(entry.ljust(-(-len(entry) // 8) * 8, b"\0") for _ in range(1000))
    struct.pack_into(">IQ", data, 60, 1000, len(data))
    with path.open("wb") as file:
        file.write(data)
        file.write(entries.ljust(CLUSTER, b"\0"))
        file.write(struct.pack(f">{4 * MIB // 8}Q", *(CLUSTER * n for n in range(1, 1 + MIB // 2))))
        file.truncate(CLUSTER * (MIB // 2 + 4))


def a_large_table(path: Path) -> None:
    """Four million places, in a file that is all hole."""
    data = header(path, 1 << 30)
    struct.pack_into(">IQ", data, 36, 4 << 20, len(data))
    with path.open("wb") as file:
        file.write(data)
        file.write(struct.pack(f">{4 << 20}Q", *(CLUSTER * n for n in range(4 << 20))))
        file.truncate(CLUSTER * (4 << 20))


def many_ranges(path: Path) -> None:
    """Every second subcluster zeroed: a map of half a million ranges for each MiB of tables."""
    tables = 96
    data = header(path, tables * 4096 * CLUSTER, "extended_l2=on")
    first = struct.unpack_from(">Q", data, 40)[0]
    place = -(-len(data) // CLUSTER) * CLUSTER
    for index in range(tables):
        struct.pack_into(">Q", data, first + 8 * index, place + index * CLUSTER | 1 << 63)
    with path.open("wb") as file:
        file.write(bytes(data).ljust(place, b"\0"))
        file.write(struct.pack(">QQ", 0, 0xAAAAAAAA << 32) * (4096 * tables))


def many_lines(path: Path) -> None:
    """A descriptor of a VMDK with more lines that are not allowed than anybody reads."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", path, "1M"], check=True)
    data = bytearray(path.read_bytes())
    start, length = struct.unpack_from("<QQ", data, 28)
    text = b"# Disk DescriptorFile\nversion=1\n" + b"nonsense\n" * 5000
    data[start * 512 : (start + length) * 512] = text[: length * 512].ljust(length * 512, b"\0")
    path.write_bytes(data)


COSTLY = {
    "snapshots": (snapshots_on_one_table, ""),
    "table": (a_large_table, "tables have more than"),
    "ranges": (many_ranges, "far too many ranges"),
    "lines": (many_lines, "not allowed"),
}


@pytest.mark.parametrize("name", COSTLY)
def test_a_small_file_of_great_cost_is_refused_in_time(
    name: str, tmp_path: Path, require: Callable[..., None]
) -> None:
    require("qemu-img", "bwrap")
    build, said = COSTLY[name]
    path = tmp_path / name
    build(path)
    before = resource.getrusage(resource.RUSAGE_SELF)
    facts = QemuImages(Sandbox()).inspect(path)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime - before.ru_utime < CPU_SECONDS
    assert facts.refusals or name == "snapshots"
    assert said in " ".join(facts.refusals)
    assert len(facts.refusals) <= TOLD + 1 >= len(facts.notes)
    assert sum(map(len, (*facts.refusals, *facts.notes))) < 64 << 10


@pytest.mark.parametrize("name", COSTLY)
def test_the_first_look_takes_little(name: str, tmp_path: Path) -> None:
    """The helper itself, as it runs in the sandbox, measured."""
    path = tmp_path / name
    COSTLY[name][0](path)
    with path.open("rb") as file:
        argv = [sys.executable, "-I", "-S", "-c", MEASURED]
        argv += [parser.__file__, "adapters.images.looker"]
        argv += [str(parsing.ROOT / "adapters"), str(parsing.ROOT / "pipeline")]
        argv += [*map(str, parsing.directories("oslo_utils")), "--"]
        argv += [str(file.fileno()), str(1 << 60)]
        done = subprocess.run(argv, pass_fds=[file.fileno()], capture_output=True, check=True)
    cpu, memory = map(float, done.stderr.split())
    assert cpu < CPU_SECONDS
    assert memory < MEMORY


def test_a_mistake_in_a_parser_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require: Callable[..., None]
) -> None:
    require("bwrap")
    path = tmp_path / "disk"
    path.write_bytes(b"x" * 4096)
    for script, said in (
        ("raise IndexError('list index out of range')", "IndexError"),
        ("x = bytearray(4 << 30)", "too much CPU or memory"),
        ("import os; os.kill(os.getpid(), 9)", "too much CPU or memory"),
        ("print('{}')", "no sense"),
        ("print('[' * 100000)", "no sense"),
    ):
        program = tmp_path / "parser.py"
        program.write_text(script)
        monkeypatch.setattr(parser, "__file__", str(program))
        refusals = QemuImages(Sandbox()).inspect(path).refusals
        assert len(refusals) == 1
        assert said in refusals[0]
