"""Parsers in a process of their own: what they take and say is bounded, what they refuse is refused
here, and what one says that an archive has taken over is believed no more than the archive."""

import json
import struct
import subprocess
import sys
import tarfile
from base64 import b64decode
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.process import parser, parsing
from adapters.process.sandbox import Sandbox
from adapters.sources import libvirt, machine_archives, unpacking
from adapters.sources.machines import METADATA
from pipeline.errors import DescriptionInvalid, GalleriaError, StageFailed, UnsafeImage
from pipeline.model.sources import ArchiveForm, ArchiveSource
from pipeline.ports.extents import Extent, Kind
from pipeline.sources.partitions import read_partitions

pytestmark = pytest.mark.hostile
BARE = Sandbox(enabled=False)
NOWHERE = "test:///nowhere"
DOMAIN = b"<domain><name>a</name><devices><disk><source file='a.raw'/></disk></devices></domain>"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Another program in place of the parser."""

    def put(script: str) -> None:
        path = tmp_path / "parser.py"
        path.write_text(script)
        monkeypatch.setattr(parser, "__file__", str(path))

    return put


def ask() -> Mapping[str, object]:
    return parsing.ask("json", (), BARE, parsing.Given(), seconds=10)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("raise IndexError('list index out of range')", "IndexError"),
        ("x = bytearray(4 << 30)", "too much CPU or memory"),
        ("import os; os.kill(os.getpid(), 9)", "too much CPU or memory"),
        ("print('[]')", "no sense"),
        ("print('[' * 100000)", "no sense"),
        ("print('x' * (5 << 20))", "too much"),
        ("import sys; sys.stderr.write('x' * (5 << 20))", "too much"),
        ('print(\'{"refused": ["SystemExit", "x", "y"]}\')', "without sense"),
        ('print(\'{"refused": ["UnsafeImage"]}\')', "without sense"),
    ],
)
def test_a_parser_that_fails_is_told(
    script: str, said: str, program: Callable[[str], None]
) -> None:
    program(script)
    with pytest.raises(parsing.Unreadable, match=said):
        ask()


def test_a_parser_that_does_not_end_is_ended(program: Callable[[str], None]) -> None:
    program("import time; time.sleep(60)")
    with pytest.raises(parsing.Unreadable, match="no end"):
        parsing.ask("json", (), BARE, parsing.Given(), seconds=0.2)


def test_a_parser_that_cannot_run_is_no_refusal(program: Callable[[str], None]) -> None:
    program("import nothing_of_that_name")
    with pytest.raises(StageFailed, match="nothing_of_that_name"):
        ask()


@pytest.mark.parametrize("kind", parsing.REFUSALS.values())
def test_a_refusal_is_raised_as_it_was(
    kind: type[GalleriaError], program: Callable[[str], None]
) -> None:
    refused = {"refused": [kind.__name__, "it is not", "mend it"]}
    program(f"print({json.dumps(json.dumps(refused))})")
    with pytest.raises(kind, match="it is not") as caught:
        ask()
    assert (type(caught.value), caught.value.hint) == (kind, "mend it")


# --- who lies ------------------------------------------------------------------------------------

DISK = {"name": "a.img", "members": ["a.img"], "declared": None, "capacity": None}
HONEST = {
    "files": {"a.img": "disk-0"},
    "disks": [DISK],
    "description": [None, None, None, None],
    "described": [],
}
LIES: Mapping[str, Mapping[str, object]] = {
    "another file": {"files": {"a.img": "../../secret"}},
    "an absolute one": {"files": {"a.img": "/etc/shadow"}},
    "a link": {"files": {"a.img": "disk-1"}},
    "none": {"files": {"a.img": "disk-2"}},
    "a directory": {"files": {"a.img": "disk-3"}},
    "a name that leads out": {"files": {"../a.img": "disk-0"}},
    "a name of no text": {"disks": [{**DISK, "name": ["a"]}]},
    "a member of nowhere": {"disks": [{**DISK, "members": ["b"]}]},
    "no disks": {"disks": []},
    "another shape": {"disks": {}, "files": []},
    "a format": {"disks": [{**DISK, "declared": "qed"}]},
    "too little": {"description": []},
}


@pytest.mark.parametrize("name", ["", *LIES])
def test_what_an_unpacker_says_is_looked_at(
    name: str, tmp_path: Path, program: Callable[[str], None]
) -> None:
    said = json.dumps({**HONEST, **LIES.get(name, {})})
    program(
        "import os, sys\n"
        "out = sys.argv[sys.argv.index('--') + 2]\n"
        "open(out + '/disk-0', 'w').write('content')\n"
        "os.symlink('/etc/shadow', out + '/disk-1')\n"
        "os.mkdir(out + '/disk-3')\n"
        f"print({said!r})\n"
    )
    path = tmp_path / "web.box"
    path.write_bytes(b"archive")
    into = tmp_path / "into"
    into.mkdir()
    source = ArchiveSource(path, ArchiveForm.BOX)
    if not name:
        (disk,) = machine_archives.open_archive(source, path, into, BARE).disks
        assert disk.path.read_bytes() == b"content"
        return
    with pytest.raises(UnsafeImage, match=r"cannot be read|not allowed"):
        machine_archives.open_archive(source, path, into, BARE)
    unpacking.discard(into)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "parser.py", path]


def test_one_domain_that_stops_the_parser_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.xml").write_bytes(DOMAIN.replace(b"a.raw", name.encode()))
    whole, asked = parsing.ask, 0

    def stops(*arguments: Any, **options: Any) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        contents = [b64decode(content) for content, _ in json.loads(arguments[3].stdin)]
        if any(b"file='b'" in content for content in contents):
            raise parsing.Unreadable("too much")
        return whole(*arguments, **options)

    monkeypatch.setattr(parsing, "ask", stops)
    found = [machine for _, machine in libvirt.list_machines(tmp_path, NOWHERE, BARE)]
    assert [isinstance(machine, DescriptionInvalid) for machine in found] == [False, True, False]
    assert asked == 4


# of a GPT's header: where its entries lie, how many they are and of what length
ENDS = [
    struct.pack("<QII", *fields)
    for fields in ((2, 128, 128), (2, 256, 4096), (2, 1 << 31, 128), (1 << 60, 128, 128),
                   (2, 128, 1 << 31), (0, 256, 128))
]  # fmt: skip


# --- what they take ------------------------------------------------------------------------------


def _deep(count: int) -> bytes:
    return b"<a>" * count + b"</a>" * count


COSTLY: Mapping[str, bytes] = {
    "deep": b"<domain>" + _deep(140_000) + b"</domain>",
    "wide": b"<domain><devices>" + b"<disk/>" * 149_000 + b"</devices></domain>",
    "attributes": b"<domain " + b" ".join(b"a%d=''" % n for n in range(90_000)) + b"/>",
    "ids": DOMAIN.replace(b"<devices>", b"<os id='x'/>" * 85_000 + b"<devices>"),
}


MEASURED = """
import resource, sys
from contextlib import suppress
from adapters.process.sandbox import Sandbox
from adapters.sources import libvirt
from pipeline.errors import DescriptionInvalid
from pipeline.model.sources import VmSource
with suppress(DescriptionInvalid):
    libvirt.read_machine(VmSource(sys.argv[1]), "test:///nowhere", Sandbox(enabled=False))
took = resource.getrusage(resource.RUSAGE_CHILDREN)
print(took.ru_utime + took.ru_stime, took.ru_maxrss << 10)
"""


@pytest.mark.parametrize("name", COSTLY)
def test_a_small_description_costs_little(name: str, tmp_path: Path) -> None:
    path = tmp_path / "vm.xml"
    path.write_bytes(COSTLY[name])
    argv = [sys.executable, "-c", MEASURED, str(path)]
    done = subprocess.run(argv, check=True, capture_output=True, cwd=parsing.ROOT)
    seconds, memory = map(float, done.stdout.split())
    assert seconds < 2
    assert memory < 256 << 20


def test_members_without_end_cost_little(tmp_path: Path) -> None:
    path, into = tmp_path / "web.box", tmp_path / "into"
    into.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        for number in range(5000):
            archive.addfile(tarfile.TarInfo(f"{number}.img"))
        archive.addfile(tarfile.TarInfo(METADATA))
    with pytest.raises(UnsafeImage, match="more than 1000 members"):
        machine_archives.open_archive(ArchiveSource(path, ArchiveForm.BOX), path, into, BARE)


def test_a_partition_table_costs_a_few_reads() -> None:
    """It is parsed in galleria's own process: whatever it says, so little of the disk is read."""
    reads: list[int] = []

    class Disk(SimpleNamespace):
        virtual_size = 64 << 20

        def extents(self) -> list[object]:
            return [Extent(0, self.virtual_size, Kind.DATA)]

        def read_into(self, into: memoryview, extent: Extent) -> None:
            reads.append(len(into))
            into[:] = (content * (len(into) // len(content) + 1))[: len(into)]

    for seed in range(2000):
        random = Random(seed)  # noqa: S311 - no secret
        content = random.randbytes(512)
        content = content[:510] + b"\x55\xaa"
        if seed % 2:
            content = b"EFI PART" + content[8:72] + random.choice(ENDS) + content[88:]
            content = content[:450] + b"\xee" + content[451:]
        reads.clear()
        table = read_partitions(Disk())  # type: ignore[arg-type]
        assert len(table.partitions) <= 256
        assert len(reads) <= 4
        assert sum(reads) <= (2 << 20)
