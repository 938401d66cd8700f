"""The hostile corpus: refused, and by galleria's own parser before any other program looks."""

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from adapters.filesystem.rawfile import open_readonly
from adapters.formats import Window
from adapters.formats.window import TOLD
from adapters.images import QemuImages
from adapters.images.inspect import Policy, detect_format, inspect_as
from adapters.process import parser
from adapters.process.sandbox import Sandbox
from fixtures import hostile
from pipeline.errors import GalleriaError, UnsafeImage
from pipeline.ports import ImageFormat, Layer

pytestmark = [pytest.mark.system, pytest.mark.hostile]
ROOT = Path(__file__).parents[2]
CANARY = b"galleria-canary-of-the-host"


class Shut(Sandbox):
    """A sandbox that no other program than galleria's own parser may be run in."""

    def wrap(self, argv: Sequence[str], **options: Any) -> list[str]:
        assert self.name(Path(parser.__file__)) in argv, f"{argv[0]} saw the file"
        return super().wrap(argv, **options)


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[int]:
    fd = open_readonly(path)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    return hostile.templates(tmp_path_factory.mktemp("templates"))


def test_the_templates_themselves_are_good(templates: Mapping[str, bytes], tmp_path: Path) -> None:
    for name, content in templates.items():
        if "huge" not in name:
            (tmp_path / name).write_bytes(content)
            assert QemuImages(Sandbox()).inspect(tmp_path / name).refusals == (), name


@pytest.mark.parametrize("recipe", hostile.RECIPES, ids=lambda recipe: recipe.name)
def test_it_is_refused(
    recipe: hostile.Recipe, templates: Mapping[str, bytes], tmp_path: Path
) -> None:
    path = recipe.build(templates, tmp_path)
    images = QemuImages(Shut() if recipe.early else Sandbox())
    facts = images.inspect(path, declared=recipe.declared)
    assert any(recipe.refused in refusal for refusal in facts.refusals), facts.refusals
    assert all(refusal.isprintable() for refusal in facts.refusals)
    ambiguous = "several things" in recipe.refused
    if recipe.early and not (ambiguous or recipe.declared or facts.format is ImageFormat.RAW):
        # whoever opens it without asking first is stopped as well
        with pytest.raises(UnsafeImage), images.open((Layer(path, facts.format),)):
            pass


def test_no_recipe_has_another_ones_name() -> None:
    names = [recipe.name for recipe in hostile.RECIPES]
    assert len(set(names)) == len(names)


CONVERTS = """
import sys
from pathlib import Path
from adapters.process import parser
from adapters.process.sandbox import Sandbox
from adapters.qemu import img
from pipeline.errors import CommandFailed
from pipeline.ports import ImageFormat, Layer
path, format, target = sys.argv[1:]
try:
    img.convert(Sandbox(), (Layer(Path(path), ImageFormat(format)),), Path(target), "raw")
except CommandFailed as error:
    print(error.message)
"""
USERS = {
    "root": (),
    "user": ("setpriv", "--reuid=65533", "--regid=65533", "--clear-groups"),
}


@pytest.fixture(params=USERS)
def runs_as(request: pytest.FixtureRequest) -> Sequence[str]:
    """Who runs galleria: words before a command."""
    ahead = USERS[request.param] if os.geteuid() == 0 else ()
    if request.param == "root" and os.geteuid():
        pytest.skip("not root")
    trial = [*ahead, sys.executable, "-c", "import adapters"]
    if subprocess.run(trial, cwd=ROOT, check=False).returncode:
        pytest.skip("an ordinary user cannot read this checkout")
    return ahead


def test_the_sandbox_holds_where_inspection_would_fail(
    templates: Mapping[str, bytes], runs_as: Sequence[str]
) -> None:
    """Real lies, straight into qemu-img in the sandbox: no byte of the host comes out."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        _lie(templates, runs_as, Path(name))


def _lie(templates: Mapping[str, bytes], runs_as: Sequence[str], tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    secret, linked = tmp_path / "secret", tmp_path / "linked"
    options = f"data_file={secret},data_file_raw=on"
    subprocess.run(["qemu-img", "create", "-qf", "qcow2", "-o", options, linked, "1M"], check=True)
    secret.write_bytes((CANARY * 50_000)[: 1 << 20])
    name = str(secret).encode()
    extent = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
    extent += f'createType="monolithicFlat"\nRW 2048 FLAT "{secret}" 0\n'
    lies = {
        "backing": (ImageFormat.QCOW2, "qcow2", hostile.backing(name)),
        "data-file": (ImageFormat.QCOW2, "qcow2", hostile.instead(linked.read_bytes())),
        "flat": (ImageFormat.VMDK, "raw", hostile.instead(extent.encode())),
    }
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o777)
    for lie, (format, template, patch) in lies.items():
        path = tmp_path / lie
        path.write_bytes(bytes(patch(bytearray(templates[template]))))
        target = out / f"{lie}.raw"
        argv = [*runs_as, sys.executable, "-c", CONVERTS, path, format.value, target]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, check=True)
        assert CANARY not in done.stdout + done.stderr
        assert not target.exists() or CANARY not in target.read_bytes()
        # the lie itself is a real one: outside of the sandbox it leaks
        if lie != "backing":
            driver = format.qemu_name
            leak = tmp_path / "leak"
            subprocess.run(
                ["qemu-img", "convert", "-f", driver, "-O", "raw", path, leak],
                check=False,
                capture_output=True,
            )
            assert CANARY in leak.read_bytes()
            leak.unlink()


MUTATIONS = [pytest.param(20_000), pytest.param(1_000_000, marks=pytest.mark.nightly)]
VALUES = (0, 1, 0x7F, 0x80, 0xFF)


@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("count", MUTATIONS)
def test_damaged_images_are_refused_or_read_but_never_crash_a_parser(
    count: int, templates: Mapping[str, bytes]
) -> None:
    """Random bytes changed in the headers and tables of good images, by our parsers alone."""
    chance = random.Random(count)  # noqa: S311 - the same damage on every run
    names = [name for name in templates if "huge" not in name]
    longest = 0.0
    for name in names:
        content = templates[name]
        fd = os.memfd_create("damaged")
        try:
            os.write(fd, content)
            for _ in range(count // len(names) + 1):
                changed = [_place(chance, len(content)) for _ in range(chance.randint(1, 8))]
                for place in changed:
                    os.pwrite(fd, bytes([chance.choice(VALUES)]), place)
                cut = chance.randrange(1, len(content)) if chance.random() < 0.05 else 0
                if cut:
                    os.ftruncate(fd, cut)
                began = time.process_time()
                _look_at(fd)
                longest = max(longest, time.process_time() - began)
                if cut:
                    os.pwrite(fd, content, 0)
                for place in changed:
                    os.pwrite(fd, content[place : place + 1], place)
        finally:
            os.close(fd)
    assert longest < 1


def _place(chance: random.Random, length: int) -> int:
    """Headers more often than what is behind them, and footers."""
    where = chance.choice((128, 1024, 4096, length))
    place = chance.randrange(min(where, length))
    return length - 1 - place if chance.random() < 0.2 else place


def _look_at(fd: int) -> None:
    try:
        format, _doubts = detect_format(Window(fd))
    except GalleriaError:
        return
    for kind in {format, ImageFormat.RAW}:
        found = inspect_as(fd, kind, Policy())
        assert len(found.refusals) <= TOLD
