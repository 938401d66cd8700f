"""What it takes until a publication reads the first byte of its source: CPU, and what was loaded.

The aim is 0.5 s of CPU on an idle host; the bound leaves room for busy and slower ones.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.home import Home, furnished

pytestmark = pytest.mark.system

SECONDS = 1.0
# of build specs, HTTP sources, exports, the server: nothing that a publication of a file needs
IDLE = (
    "urllib3",
    "oslo_utils",
    "pydantic",
    "ruamel",
    "alembic",
    "fastapi",
    "jinja2",
    "cyclonedx",
    "psycopg",
)
# Of images, guests, machines and jobs: nothing that is needed to say what the catalog holds. Zones
# need what reads a qcow2's backing file and knows a raw file.
ROOT = Path(__file__).parents[2]
NEEDED = {"__init__", "show", "window", "qcow2", "raw", "vhd_footer"}
UNSHOWN = (
    *IDLE,
    *(
        f"{room.replace('/', '.')}.{path.stem}"
        for room in ("pipeline/jobs", "adapters/formats")
        for path in (ROOT / room).glob("*.py")
        if path.stem not in NEEDED
    ),
    *("guestfs", "nbd", "libvirt", "xml", "http", "tarfile", "pipeline.sources"),
    *("pipeline.guest", "pipeline.azure", "pipeline.storage.commit", "pipeline.publish"),
    *("adapters.guestfs", "adapters.images", "adapters.qmp", "adapters.vms"),
    *("adapters.sources", "adapters.pins", "adapters.qemu.nbd", "adapters.qemu.emulator"),
)
# stops where the first stage begins to read, and says what it took until then
UNTIL_FIRST_READ = """
import json, os, resource, sys
import adapters.cli, pipeline.jobs.prepare

def ingest(*_):
    used = resource.getrusage(resource.RUSAGE_SELF)
    loaded = [name for name in sys.argv[1].split(",") if name in sys.modules]
    print(json.dumps({"cpu": used.ru_utime + used.ru_stime, "loaded": loaded}), flush=True)
    os._exit(0)

pipeline.jobs.prepare.ingest = ingest
sys.exit(adapters.cli.run(sys.argv[2:]))
"""


def until_first_read(home: Home, *args: str) -> dict[str, Any]:
    command = [sys.executable, "-c", UNTIL_FIRST_READ, ",".join(IDLE), *args]
    env = {**home.env, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=env, cwd=home.path
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_publish_reaches_its_first_read_soon(tmp_path: Path, require: Callable[..., None]) -> None:
    require("bwrap")
    home = furnished(Home(tmp_path))
    publish = ("publish", "corp/web/1.0.0", "--os-disk", "small.raw")
    found = [until_first_read(home, *publish) for _ in range(3)]
    assert [one["loaded"] for one in found] == [[]] * 3
    assert min(one["cpu"] for one in found) < SECONDS, (found, os.getloadavg())


def loaded(home: Home, names: Iterable[str], *args: str) -> list[str]:
    """Which of these modules a command loads."""
    run = "import sys, adapters.cli; status = adapters.cli.run(sys.argv[2:]);"
    run += "print(status, *(name for name in sys.argv[1].split(',') if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", run, ",".join(names), *args],
        capture_output=True,
        text=True,
        check=True,
        env={**home.env, "PYTHONPATH": str(ROOT)},
        cwd=home.path,
    )
    status, *found = done.stdout.splitlines()[-1].split()
    assert status == "0"
    return found


def test_help_loads_no_database(tmp_path: Path) -> None:
    home = Home(tmp_path)
    heavy = (*IDLE, "sqlalchemy", "nbd", "http", "asyncio")
    assert loaded(home, heavy, "publish", "--help") == []
    assert "--os-disk" in home.run("publish", "--help").stdout
    assert loaded(home, (*heavy, "pipeline.model", "pipeline.ports"), "--help") == []


@pytest.mark.parametrize("command", [("show", "corp/web/1.0.0"), ("list",)])
def test_what_only_asks_the_catalog_loads_little(
    tmp_path: Path, require: Callable[..., None], command: tuple[str, ...]
) -> None:
    require("bwrap")
    home = furnished(Home(tmp_path))
    home.run("publish", "corp/web/1.0.0", "--os-disk", "small.raw")
    assert loaded(home, ("adapters.catalog.sql",), *command) == ["adapters.catalog.sql"]
    assert loaded(home, UNSHOWN, *command) == []
