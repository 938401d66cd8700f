"""galleria killed (SIGKILL) in each stage of publishing a real guest: the same command completes
the
version, nothing of the killed run is left, and the source is what it was."""

import hashlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fixtures import debian
from tests.home import GALLERIA, Home

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(900)]

# A stage's name as progress reports it, and how far into it the process is killed.
STAGES = {"generalize": 0, "generalize halfway": 15, "convert os": 0, "convert os halfway": 1 << 20}


def command(guest: debian.Guest) -> list[str]:
    disks = ["--os-disk", str(guest.os_disk), "--data-disk", f"0={guest.data_disk}"]
    regions = ["--target-region", "eu=2", "--target-region", "us=1"]
    return ["publish", "corp/web/1.0.0", *disks, *regions, "--progress", "json"]


def kill_in(home: Home, argv: list[str], stage: str) -> None:
    """Run galleria until it reports being that far in a stage, then SIGKILL it."""
    name, done = stage.removesuffix(" halfway"), STAGES[stage]
    with subprocess.Popen(
        [GALLERIA, *argv], env=home.env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            event = json.loads(line)
            if event.get("stage") == name and event.get("done", 0) >= done:
                break
        else:
            pytest.fail(f"galleria ended before {stage}")
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def children(home: Home) -> list[str]:
    """Commands that still run and name the home: what a killed galleria left behind."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes()
        except (OSError, NotADirectoryError):
            continue
        if os.fsencode(str(home.path)) in line and entry.name != str(os.getpid()):
            found.append(line.replace(b"\0", b" ").decode(errors="replace"))
    return found


def digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_mtime_ns


def test_killed_in_each_stage(tmp_path: Path, guest: debian.Guest) -> None:
    home = Home(tmp_path)
    home.env |= {"GALLERIA_CACHE": str(debian.default_cache()), "GALLERIA_IMMUTABLE": "false"}
    home.run("init", "--region", f"eu={tmp_path}/eu", "--region", f"us={tmp_path}/us")
    home.run("gallery", "create", "corp")
    home.run(
        *("definition", "create", "corp/web", "--os-type", "Linux", "--publisher", "Contoso"),
        *("--offer", "web", "--sku", "front", "--hyper-v-generation", "V1"),
    )
    before = digest(guest.os_disk), digest(guest.data_disk)
    argv = command(guest)
    for stage in STAGES:
        kill_in(home, argv, stage)
        deadline = time.monotonic() + 60
        while children(home) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert children(home) == [], stage
        assert home.json("list")["versions"][0]["provisioningState"] == "Creating"
    home.run(*argv)
    version = home.json("show", "corp/web/1.0.0")["version"]
    assert version["provisioningState"] == "Succeeded"
    digests = {disk["digest"] for disk in version["disks"]}
    for region in ("eu", "us"):
        assert {path.name for path in (tmp_path / region / "bases").iterdir()} == digests
        assert len(list((tmp_path / region / "versions").iterdir())) == 1
        assert list((tmp_path / region / "staging").iterdir()) == []
    assert list((tmp_path / "state" / "galleria" / "work" / "galleria").iterdir()) == []
    assert (digest(guest.os_disk), digest(guest.data_disk)) == before
    home.run("verify", "corp/web/1.0.0")
