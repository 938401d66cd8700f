"""Who owns work when a host dies, or its process hangs and goes on later: two hosts with one
catalog, and zones that both have.

A host is a UTS and mount namespace with a boot id of its own. The lease is short: six seconds.
"""

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.catalog import open_catalog
from pipeline.model import ProvisioningState
from pipeline.model.names import parse_version
from pipeline.model.runs import RunState
from tests.contract.conftest import POSTGRES, new_database, postgres_server
from tests.home import DEFINE, GALLERIA, Home, deletable

__all__ = ["postgres_server"]

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of other hosts: root"),
]

LEASE = 6
V100 = parse_version("corp/web/1.0.0")
PUBLISH = ("publish", "corp/web/1.0.0", "--os-disk", "d.raw", "--quiet")
# a boot id of its own, as every host has
HOST = 'hostname "$0" && mount --bind "$1" /proc/sys/kernel/random/boot_id && shift && exec "$@"'


class Hosts(Home):
    """A home that several hosts have; commands run on one of them."""

    def __init__(self, path: Path, url: str) -> None:
        super().__init__(path)
        self.env["GALLERIA_LEASE"] = str(LEASE)
        self.url = url
        self.run("init", "--region", f"eu={path}/eu", "--catalog", url)
        self.run("gallery", "create", "corp")
        self.run(*DEFINE)
        (path / "d.raw").write_bytes(os.urandom(64 << 20))

    def start(self, host: str, *args: str) -> "subprocess.Popen[str]":
        boot = self.path / f"boot-{host}"
        boot.write_text(f"{uuid.uuid4()}\n")
        return subprocess.Popen(
            ["unshare", "-u", "-m", "sh", "-c", HOST, host, str(boot), str(GALLERIA), *args],
            env=self.env,
            cwd=self.path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def on(self, host: str, *args: str) -> tuple[int, str]:
        process = self.start(host, *args)
        _, said = process.communicate(timeout=120)
        return process.returncode, said

    @contextlib.contextmanager
    def publishing(self, host: str) -> Iterator["subprocess.Popen[str]"]:
        """A publish that has the version and has not ended."""
        process = self.start(host, *PUBLISH)
        try:
            self._wait_for_version()
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def _wait_for_version(self) -> None:
        deadline = time.monotonic() + 60
        with contextlib.closing(open_catalog(self.url)) as catalog:
            while time.monotonic() < deadline:
                with catalog.read() as reader:
                    if reader.version(V100) is not None:
                        return
                time.sleep(0.01)
        raise AssertionError("it never took the version")

    def runs(self) -> list[RunState]:
        """How the runs ended, oldest first."""
        with contextlib.closing(open_catalog(self.url)) as catalog, catalog.read() as reader:
            return [run.state for run in reversed(reader.runs(ended=True))]


@pytest.fixture(params=["sqlite", POSTGRES])
def hosts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hosts]:
    yield Hosts(tmp_path, new_database(request.param, tmp_path, request.getfixturevalue))
    deletable(tmp_path)


def check_whole(hosts: Hosts) -> None:
    with contextlib.closing(open_catalog(hosts.url)) as catalog, catalog.read() as reader:
        version = reader.version(V100)
    assert version is not None
    assert version.provisioning_state is ProvisioningState.SUCCEEDED
    assert version.owner is None
    hosts.run("verify", "corp/web/1.0.0")
    assert len(list((hosts.path / "eu" / "versions").iterdir())) == 1
    assert list((hosts.path / "eu" / "staging").iterdir()) == []


def test_what_a_host_that_died_worked_on_is_gone_on_with(hosts: Hosts) -> None:
    with hosts.publishing("a") as process:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        status, said = hosts.on("b", *PUBLISH)
    assert (status, said) == (0, said)
    check_whole(hosts)
    assert hosts.runs() == [RunState.FAILED, RunState.SUCCEEDED]


def test_a_process_that_hung_and_was_overtaken_changes_nothing(hosts: Hosts) -> None:
    with hosts.publishing("a") as process:
        os.kill(process.pid, signal.SIGSTOP)
        status, said = hosts.on("b", *PUBLISH)
        assert status == 5, said
        assert "another process works on corp/web/1.0.0" in said
        time.sleep(LEASE + 1)
        status, said = hosts.on("b", *PUBLISH)
        assert status == 0, said
        os.kill(process.pid, signal.SIGCONT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 5
    assert "is not this process's any more" in said
    check_whole(hosts)
    assert hosts.runs()[0] is RunState.FAILED
