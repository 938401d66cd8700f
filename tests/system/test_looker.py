"""The process that looks at an image first: it starts once for a file, imports little, and every
inspector runs in it or the image is not taken."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from adapters.images import QemuImages, headers, looking
from adapters.process import parser, parsing
from adapters.process.sandbox import Sandbox
from pipeline.errors import StageFailed, UnsafeImage
from pipeline.jobs.context import JobContext
from pipeline.jobs.files import inspect_file
from pipeline.model.sources import DiskSource
from pipeline.ports import ImageFormat

pytestmark = [pytest.mark.system, pytest.mark.hostile]

# the looker's modules as its own program has them: of no environment, and with made packages
STARTED = """
import io, json, runpy, sys
provide = runpy.run_path(sys.argv[1])["provide"]
adapters, pipeline, *directories = sys.argv[3:]
sys.path += directories
provide("adapters", adapters)
provide("pipeline", pipeline)
from adapters.images import headers
inspectors = headers._format_inspector()
def inspect(passphrase):
    options = {"luks_passphrase": passphrase, "luks_iter_limit": 0}
    wrapper = inspectors.InspectWrapper(open(sys.argv[2], "rb"), params=options)
    while wrapper.read(65536):
        pass
    wrapper.close()
    return [[found.NAME, found.virtual_size, str(found.inner_format)] for found in wrapper.formats]
"""


def started(script: str, image: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", "-S", "-c", STARTED + script, parser.__file__, str(image)]
    argv += [str(parsing.ROOT / "adapters"), str(parsing.ROOT / "pipeline")]
    argv += map(str, parsing.directories("oslo_utils"))
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.fixture
def encrypted(tmp_path: Path, require: Callable[..., None]) -> Path:
    """A LUKS volume; what 1 MiB of zeros decrypts to is called raw."""
    require("cryptsetup")
    path = tmp_path / "disk.luks"
    with path.open("wb") as file:
        file.truncate(3 << 20)
    argv = ["cryptsetup", "luksFormat", "--batch-mode", "--type", "luks1", "--hash", "sha256"]
    argv += ["--cipher", "aes-xts-plain64", "--key-size", "512"]
    argv += ["--pbkdf-force-iterations", "1000", str(path), "-"]
    subprocess.run(argv, input=b"sesame", check=True)
    return path


def test_cryptography_comes_when_the_inspector_of_luks_decrypts(encrypted: Path) -> None:
    script = """
print(json.dumps([inspect(None), "cryptography" in sys.modules]))
print(json.dumps([inspect("sesame"), "cryptography" in sys.modules]))
"""
    closed, opened = map(json.loads, started(script, encrypted).stdout.splitlines())
    assert closed == [[["luks", 1 << 20, "None"]], False]
    assert opened == [[["luks", 1 << 20, "raw"]], True]


def test_an_inspector_that_cannot_decrypt_ends_the_look(encrypted: Path) -> None:
    script = """
sys.modules["cryptography"] = None
print(inspect("sesame"))
"""
    done = started(script, encrypted)
    assert (done.returncode, done.stdout) == (1, "")
    assert "inspector of LUKS can't run" in done.stderr.splitlines()[-1]


def test_an_encrypted_volume_is_refused_by_both(encrypted: Path) -> None:
    fd = os.open(encrypted, os.O_RDONLY)
    try:
        with pytest.raises(UnsafeImage, match="luks"):
            headers.oslo(fd, ImageFormat.RAW, has_backing=False)
    finally:
        os.close(fd)
    assert "LUKS" in " ".join(QemuImages(Sandbox()).inspect(encrypted).refusals)


def test_an_image_is_not_taken_where_an_inspector_cannot_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"x" * 4096)
    monkeypatch.setattr(parsing, "directories", lambda _: [])
    with pytest.raises(StageFailed, match="No module named 'oslo_utils'"):
        QemuImages(Sandbox()).inspect(path)


def test_a_file_is_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require: Callable[..., None]
) -> None:
    require("qemu-img", "bwrap")
    path = tmp_path / "disk.qcow2"
    looks: list[int] = []
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    look = looking.look

    def counted(fd: int, sandbox: Sandbox, policy: headers.Policy) -> looking.Look:
        looks.append(fd)
        return look(fd, sandbox, policy)

    monkeypatch.setattr(looking, "look", counted)
    context = SimpleNamespace(
        images=QemuImages(Sandbox()),
        work=SimpleNamespace(directory=lambda: nullcontext(tmp_path)),
        sources=SimpleNamespace(unwrapped=lambda source, _: nullcontext(source)),
    )
    found = inspect_file(DiskSource(None, path), cast(JobContext, context), deep=False)
    assert found.facts.refusals == ()
    assert found.facts.virtual_size == 1 << 20
    assert len(looks) == 1
