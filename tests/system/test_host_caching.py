"""Host caching, as qemu itself understands what is written for it."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.vms import line, parts
from pipeline.model import OsType
from tests.unit.test_vms import CACHES, CACHING, MACHINE, disk

pytestmark = pytest.mark.system


@pytest.mark.parametrize("os_type", list(OsType))
def test_qemu_takes_the_cache_modes(tmp_path: Path, os_type: OsType) -> None:
    disks = []
    for found in (disk(None), disk(0), disk(7)):
        path = tmp_path / found.path.name
        command = ["qemu-img", "create", "-q", "-f", "qcow2", str(path), "1M"]
        subprocess.run(command, check=True)
        disks.append(replace(found, path=path))
    machine = replace(
        MACHINE,
        os_type=os_type,
        home=tmp_path,
        disks=tuple(disks),
        host_caching=CACHING,
        profile=None,
    )
    words = line.arguments(machine, parts.plan(machine, "kvm"))
    del words[words.index("-chardev") :]
    asked = "".join(
        json.dumps({"execute": name}) + "\n" for name in ("qmp_capabilities", "query-block", "quit")
    )
    done = subprocess.run(
        [*words, "-S", "-machine", "accel=tcg", "-qmp", "stdio"],
        input=asked,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    answers = [json.loads(text) for text in done.stdout.splitlines()]
    blocks = next(item["return"] for item in answers if isinstance(item.get("return"), list))
    caches = {Path(block["inserted"]["file"]).stem: block["inserted"]["cache"] for block in blocks}
    modes = {
        name: "none" if cache["direct"] else "writeback" if cache["writeback"] else "writethrough"
        for name, cache in caches.items()
    }
    assert modes == {name: mode for name, mode in CACHES.items() if mode}
