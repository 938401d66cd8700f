"""What the boot harness reads on a console, and how it ends."""

from pathlib import Path

import pytest

from fixtures.boot import BootFailed, Machine, arguments, boot, parse

BLOCK = """
[ 20.1] noise
identity-begin
machine-id=0123
host-key=256 SHA256:aaa root@vm (ED25519)
host-key=3072 SHA256:b=b root@vm (RSA)
ssh=active
hostname=localhost
data=
users=alice bob
authorized=/home/alice/.ssh/authorized_keys ssh-ed25519 AAAA= alice
failed=a.service b.service
identity-end
localhost login: """


def test_parse_reads_a_complete_block() -> None:
    identity = parse(BLOCK, 3.0)
    assert identity is not None
    assert identity.machine_id == "0123"
    assert identity.host_keys == {
        "256 SHA256:aaa root@vm (ED25519)",
        "3072 SHA256:b=b root@vm (RSA)",
    }
    assert identity.ssh == "active"
    assert identity.failed == ("a.service", "b.service")
    assert identity.seconds == 3.0
    assert identity.users == ("alice", "bob")
    assert identity.authorized == ("/home/alice/.ssh/authorized_keys ssh-ed25519 AAAA= alice",)


@pytest.mark.parametrize("cut", [0, 20, 60, len(BLOCK) - 40])
def test_parse_waits_for_the_end(cut: int) -> None:
    assert parse(BLOCK[:cut]) is None


def machine(tmp_path: Path, name: str) -> Machine:
    return Machine(name, ((tmp_path / "os.qcow2", "qcow2"),), tmp_path / f"{name}.log")


def test_machines_have_uuids_of_their_own_and_no_network(tmp_path: Path) -> None:
    one, two = (arguments(machine(tmp_path, name)) for name in ("one", "two"))
    assert one[one.index("-uuid") + 1] != two[two.index("-uuid") + 1]
    assert one[one.index("-nic") + 1] == "none"


def fake_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    program = tmp_path / "qemu-system-x86_64"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setattr("adapters.process.command.PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_a_qemu_that_ends_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_qemu(tmp_path, monkeypatch, "echo no such disk >&2; exit 1")
    with pytest.raises(BootFailed, match=r"(?s)one: QEMU ended.*no such disk"):
        boot([machine(tmp_path, "one")], timeout=20)


def test_a_silent_qemu_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = tmp_path / "pid"
    fake_qemu(tmp_path, monkeypatch, f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 1000")
    for seconds in (1, 5, 25):  # a busy host may take long to start it at all
        with pytest.raises(BootFailed, match="no login in time"):
            boot([machine(tmp_path, "one")], timeout=seconds)
        if pid.exists():
            break
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()
