"""A QEMU of the test's own, with nothing to boot: its disks are written by its own qemu-io."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Machine:
    """A running QEMU with a QMP socket for galleria; `ask` uses a second one."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes]) -> None:
        self.qmp = directory / "qmp.sock"
        self._side = directory / "side.sock"
        self.process = process

    def ask(self, command: str, **arguments: Any) -> Any:
        """One QMP command, by nothing but a socket: no code of galleria's is between."""
        with socket.socket(socket.AF_UNIX) as side:
            side.settimeout(20)
            side.connect(str(self._side))
            with side.makefile("rw") as file:
                file.readline()
                for request in (
                    {"execute": "qmp_capabilities"},
                    {"execute": command, "arguments": arguments},
                ):
                    file.write(json.dumps(request))
                    file.flush()
                    while True:
                        answer = json.loads(file.readline())
                        if "return" in answer or "error" in answer:
                            break
        assert "return" in answer, answer
        return answer["return"]

    def answers(self) -> bool:
        """Whether it is up. (A socket's file is there before anybody listens.)"""
        try:
            self.ask("query-status")
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def io(self, disk: str, *commands: str) -> None:
        """Write as the guest would, through the device's own backend."""
        for command in commands:
            said = self.ask(
                "human-monitor-command", **{"command-line": f'qemu-io {disk} "{command}"'}
            )
            assert "rror" not in said, said

    def bitmaps(self) -> dict[str, list[str]]:
        return {
            device["device"]: [b["name"] for b in device["inserted"].get("dirty-bitmaps", [])]
            for device in self.ask("query-block")
        }

    def debris(self) -> list[str]:
        """What galleria should not leave: jobs, nodes, sets of descriptors."""
        nodes = [node["node-name"] for node in self.ask("query-named-block-nodes", flat=True)]
        return [
            *(job["id"] for job in self.ask("query-jobs")),
            *(name for name in nodes if "galleria" in name),
            *(str(item["fdset-id"]) for item in self.ask("query-fdsets")),
        ]


@contextmanager
def machine(directory: Path, *options: str, **disks: Path) -> Iterator[Machine]:
    """Run a machine with these disks (by the suffix of their names)."""
    argv = [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", "q35,accel=tcg", "-m", "32"),
    ]
    for name in ("qmp", "side"):
        argv += ["-qmp", f"unix:{directory}/{name}.sock,server=on,wait=off"]
    for name, path in disks.items():
        kind = path.suffix[1:]
        argv += ["-drive", f"file={path},format={kind},if=none,id={name},cache=writeback"]
        argv += ["-device", f"virtio-blk-pci,drive={name}"]
    with subprocess.Popen([*argv, *options], stderr=subprocess.PIPE) as process:
        made = Machine(directory, process)
        try:
            deadline = time.monotonic() + 30
            while not made.answers():
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield made
        finally:
            process.terminate()
            process.wait()
