"""The benchmark suite itself, in one small run: what it measures is not asked here."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.ports import ImageFormat, Layer
from tests.bench.contenders import Wrong, check
from tests.bench.subject import LOOK
from tests.conftest import missing

pytestmark = pytest.mark.system


def loops() -> list[str]:
    return subprocess.check_output(["losetup", "--list"], text=True).splitlines()


@pytest.mark.timeout(180)
def test_a_row_is_measured_checked_and_reported(tmp_path: Path, repository: Path) -> None:
    if os.geteuid() != 0:
        missing("only root can mount file systems")
    argv = [sys.executable, "-m", "tests.bench", "--scale", "tiny", "--rounds", "2"]
    argv += ["--only", "qcow2@xfs", "--cache", str(tmp_path), "--out", str(tmp_path / "out")]
    subprocess.run(argv, cwd=repository, check=True)
    report = json.loads((tmp_path / "out" / "bench.json").read_text())
    (cell,) = report["cells"]
    assert cell["cell"] == "qcow2@xfs"
    assert {name: len(runs) for name, runs in cell["timings"].items()} == {
        "galleria": 2,
        "qemu-img": 2,
        "write": 2,
        "hash": 2,
    }
    run = cell["timings"]["galleria"][0]
    assert 0 < run["peak"] < 96 << 20
    assert {"ingest", "store", "replicate"} <= set(run["profile"]["stages"])
    parts = run["profile"]["stages"].items()
    stages = sum(stage["wall"] for name, stage in parts if name != LOOK)  # what is not in `wall`
    assert stages < run["wall"] * 1.01
    # what it read is what the data has, in whole chunks at most
    assert run["profile"]["bytes"]["read"] >= cell["data"]["v1.raw"]["data"]
    measures = {figure["measure"]: figure for figure in report["figures"]}
    assert set(measures) == {"time", "resident memory"}
    text = (tmp_path / "out" / "bench.md").read_text()
    assert "| qcow2 | xfs | source warm | qemu-img |" in text
    (picture,) = (tmp_path / "out").glob("*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    # nothing is left of its disks (the kernel may let go of a loop device a little later)
    deadline = time.monotonic() + 10
    while any(str(tmp_path) in line for line in loops()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(str(tmp_path) in line for line in loops())
    assert [path.name for path in tmp_path.glob("work-*")] == []


@pytest.mark.parametrize("change", ["byte", "length"])
def test_an_output_that_is_wrong_is_not_a_figure(change: str, tmp_path: Path) -> None:
    one, other = tmp_path / "one.raw", tmp_path / "other.raw"
    one.write_bytes(b"a" * 8192)
    content = b"a" * 8191 + b"b" if change == "byte" else b"a" * 8192 + bytes(512)
    other.write_bytes(content)
    chains = [(Layer(path, ImageFormat.RAW),) for path in (one, other)]
    check(chains[0], chains[0])
    with pytest.raises(Wrong, match="is not"):
        check(*chains)
