"""The hostile corpus: refused, and by galleria's own parser before any other program looks."""

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from adapters.filesystem.rawfile import open_readonly
from adapters.formats import Window
from adapters.images import QemuImages, looker
from adapters.images.inspect import Policy, detect_format, inspect_as
from adapters.process.sandbox import Sandbox
from adapters.qemu import img
from fixtures import hostile
from pipeline.errors import CommandFailed, GalleriaError, UnsafeImage
from pipeline.ports import ImageFormat, Layer

pytestmark = [pytest.mark.system, pytest.mark.hostile]
CANARY = b"galleria-canary-of-the-host"


class Shut(Sandbox):
    """A sandbox that no other program than galleria's own parser may be run in."""

    def wrap(self, argv: Sequence[str], **options: Any) -> list[str]:
        assert self.name(Path(looker.__file__)) in argv, f"{argv[0]} saw the file"
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


def test_the_sandbox_holds_where_inspection_would_fail(
    templates: Mapping[str, bytes], tmp_path: Path
) -> None:
    """Real lies, straight into qemu-img in the sandbox: no byte of the host comes out."""
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
    for lie, (format, template, patch) in lies.items():
        path = tmp_path / lie
        path.write_bytes(bytes(patch(bytearray(templates[template]))))
        target = out / f"{lie}.raw"
        try:
            img.convert(Sandbox(), (Layer(path, format),), target, "raw")
            told = ""
        except CommandFailed as error:
            told = error.message
        assert CANARY.decode() not in told
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


@pytest.mark.timeout(300)
def test_damaged_images_are_refused_or_read_but_never_crash_a_parser(
    templates: Mapping[str, bytes], tmp_path: Path
) -> None:
    """Random bytes changed in the headers and tables of good images, by our parsers alone."""
    chance = random.Random(20)  # noqa: S311 - the same damage on every run
    path = tmp_path / "damaged"
    for name, content in templates.items():
        if "huge" in name:
            continue
        for _ in range(60):
            data = bytearray(content)
            for _ in range(chance.randint(1, 8)):
                where = chance.choice((128, 1024, len(data)))
                data[chance.randrange(where)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
            if chance.random() < 0.2:
                data = data[: chance.randrange(1, len(data))]
            path.write_bytes(data)
            with open_file(path) as fd:
                try:
                    format, _doubts = detect_format(Window(fd))
                except GalleriaError:
                    continue
                for kind in {format, ImageFormat.RAW}:
                    inspect_as(fd, kind, Policy())
