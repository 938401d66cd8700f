"""What it takes until a publication reads the first byte of its source: CPU, and what was loaded.

The aim is 0.5 s of CPU on an idle host; the bound leaves room for busy and slower ones.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
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
# stops where the first stage begins to read, and says what it took until then
UNTIL_FIRST_READ = """
import json, os, resource, sys
import adapters.cli, pipeline.publish

def ingest(*_):
    used = resource.getrusage(resource.RUSAGE_SELF)
    loaded = [name for name in sys.argv[1].split(",") if name in sys.modules]
    print(json.dumps({"cpu": used.ru_utime + used.ru_stime, "loaded": loaded}), flush=True)
    os._exit(0)

pipeline.publish.ingest = ingest
sys.exit(adapters.cli.run(sys.argv[2:]))
"""


def until_first_read(home: Home, *args: str) -> dict[str, Any]:
    command = [sys.executable, "-c", UNTIL_FIRST_READ, ",".join(IDLE), *args]
    env = {**home.env, "PYTHONPATH": str(Path(__file__).parents[2])}
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


def test_help_loads_no_database(tmp_path: Path) -> None:
    run = "import sys, adapters.cli; adapters.cli.run(['publish', '--help']);"
    names = "('sqlalchemy', 'pydantic', 'ruamel', 'nbd', 'oslo_utils', 'http')"
    run += f"sys.stderr.write(repr([name for name in {names} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True)
    assert done.stderr == "[]"
    assert "--os-disk" in done.stdout
