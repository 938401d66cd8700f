"""What a person is told to do with an armed disk."""

import shlex
from pathlib import Path

import pytest

from adapters.cli import run
from adapters.cli.file import FIRMWARE, boot_command, instructions
from pipeline.ports import ImageFormat


def test_the_command_boots_this_disk_without_a_network() -> None:
    argv = shlex.split(boot_command(Path("/a b/c,d.vhd"), ImageFormat.VHD, "V1", "tcg"))
    assert argv[:3] == ["qemu-system-x86_64", "-machine", "q35,accel=tcg"]
    # qemu's name of the format; a comma in an option is doubled
    assert argv[-1] == "if=ide,format=vpc,file=/a b/c,,d.vhd"
    assert argv[argv.index("-nic") + 1] == "none"
    assert "-no-reboot" not in argv  # the hook restarts the guest once
    assert not any("pflash" in word for word in argv)


def test_a_uefi_guest_gets_firmware() -> None:
    argv = shlex.split(boot_command(Path("/disk.qcow2"), ImageFormat.QCOW2, "V2", "kvm"))
    (firmware,) = (word for word in argv if "pflash" in word)
    assert any(firmware.endswith(f"file={path}") for path in FIRMWARE)


def test_the_instructions_name_the_check() -> None:
    text = instructions(Path("my disk.qcow2"), "qemu ...")
    assert "\n  qemu ...\n" in text
    assert text.endswith("galleria generalize 'my disk.qcow2' --check")


def test_an_answer_file_alone_makes_no_sense(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = tmp_path / "answers.xml"
    answers.write_text("<unattend/>")
    assert run(["generalize", "x.raw", "--out", "y.raw", "--unattend", str(answers)]) == 2
    assert "--unattend goes with --arm-sysprep" in capsys.readouterr().err
