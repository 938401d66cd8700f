"""A KVM that is absent, aborts or hangs is found out, remembered, and gone round."""

import os
import time
from pathlib import Path

import pytest

from adapters.guestfs.accelerator import probe
from adapters.process.sandbox import Sandbox

BARE = Sandbox(enabled=False)


@pytest.fixture
def kvm(tmp_path: Path) -> Path:
    device = tmp_path / "kvm"
    device.touch()
    return device


def fake_qemu(tmp_path: Path, behaviour: str) -> str:
    """A qemu that knows its version, counts its starts, and then behaves so."""
    program = tmp_path / "qemu"
    program.write_text(
        '#!/bin/sh\nif [ "$1" = --version ]; then echo 7.2; exit; fi\n'
        f"echo started >> {tmp_path}/starts\n{behaviour}\n"
    )
    program.chmod(0o755)
    return str(program)


def starts(tmp_path: Path) -> int:
    return (tmp_path / "starts").read_text().count("started")


def test_no_device_is_said_without_trying(tmp_path: Path) -> None:
    qemu = fake_qemu(tmp_path, "exit 1")
    found = probe(BARE, tmp_path, tmp_path, qemu=qemu, kvm=tmp_path / "none")
    assert (found.kind, "does not exist" in found.reason) == ("tcg", True)
    assert not (tmp_path / "starts").exists()


def test_working_kvm_is_used(tmp_path: Path, kvm: Path) -> None:
    qemu = fake_qemu(tmp_path, "printf '[ 0.0] Linux ver'; sleep 0.1; echo 'sion 6.1'; sleep 100")
    assert probe(BARE, tmp_path, tmp_path, qemu=qemu, kvm=kvm).kind == "kvm"


def test_aborting_kvm_is_remembered_with_its_message(tmp_path: Path, kvm: Path) -> None:
    qemu = fake_qemu(tmp_path, "echo 'failed to set MSR 0x10a' >&2; kill -ABRT $$")
    for _ in range(2):
        found = probe(BARE, tmp_path, tmp_path, qemu=qemu, kvm=kvm)
        assert found.kind == "tcg"
        assert "failed to set MSR 0x10a" in found.reason
    assert starts(tmp_path) == 1
    probe(BARE, tmp_path, tmp_path, qemu=qemu, kvm=kvm, again=True)
    assert starts(tmp_path) == 2


def test_what_a_failing_sandbox_says_is_not_remembered(tmp_path: Path, kvm: Path) -> None:
    says = "echo 'bwrap: No permissions to create a new namespace' >&2; exit 1"
    for count in (1, 2):
        found = probe(BARE, tmp_path, tmp_path, qemu=fake_qemu(tmp_path, says), kvm=kvm)
        assert (found.kind, "new namespace" in found.reason) == ("tcg", True)
        assert starts(tmp_path) == count
    assert not list(tmp_path.glob("accelerator-*.json"))
    works = fake_qemu(tmp_path, "echo 'Linux version 6.1'; sleep 100")
    assert probe(BARE, tmp_path, tmp_path, qemu=works, kvm=kvm).kind == "kvm"


def test_several_lines_are_one_reason(tmp_path: Path, kvm: Path) -> None:
    qemu = fake_qemu(tmp_path, "printf 'first\\nsecond\\n' >&2; exit 1")
    reason = probe(BARE, tmp_path, tmp_path, qemu=qemu, kvm=kvm).reason
    assert reason.endswith("first second")


def test_hanging_kvm_is_given_up(tmp_path: Path, kvm: Path) -> None:
    qemu = fake_qemu(tmp_path, "echo BIOS; exec sleep 100")
    began = time.monotonic()
    found = probe(BARE, tmp_path, tmp_path, qemu=qemu, kvm=kvm, seconds=0.5)
    assert time.monotonic() - began < 20
    assert (found.kind, "said nothing" in found.reason) == ("tcg", True)


def test_spoilt_memory_is_tried_again(tmp_path: Path, kvm: Path) -> None:
    qemu = fake_qemu(tmp_path, "exit 1")
    probe(BARE, tmp_path, tmp_path, qemu=qemu, kvm=kvm)
    (memory,) = tmp_path.glob("accelerator-*.json")
    memory.write_bytes(os.urandom(20))
    probe(BARE, tmp_path, tmp_path, qemu=qemu, kvm=kvm)
    assert starts(tmp_path) == 2
