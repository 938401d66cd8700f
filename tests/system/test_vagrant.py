"""The lab VM's Vagrantfile is one that Vagrant accepts, and its provisioning is sound shell."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.system


def validate(directory: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """`vagrant validate`, with the provider's own part of it too where that provider is there."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "VAGRANT_HOME": str(tmp_path / "vagrant.d"),
        "VAGRANT_DOTFILE_PATH": str(tmp_path / "dotfiles"),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "LC_ALL": "C.UTF-8",
    }
    usable = subprocess.run(
        ["vagrant", "plugin", "list"], env=env, capture_output=True, text=True, check=False
    )
    whole = "vagrant-libvirt" in usable.stdout
    return subprocess.run(
        ["vagrant", "validate", *([] if whole else ["--ignore-provider"])],
        cwd=directory,
        env=env | ({"VAGRANT_DEFAULT_PROVIDER": "libvirt"} if whole else {}),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_vagrantfile_is_valid(
    repository: Path, tmp_path: Path, require: Callable[..., None]
) -> None:
    require("vagrant")
    done = validate(repository, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "validated successfully" in done.stdout


def test_a_wrong_one_is_not(repository: Path, tmp_path: Path, require: Callable[..., None]) -> None:
    require("vagrant")
    text = (repository / "Vagrantfile").read_text()
    wrong = tmp_path / "lab"
    wrong.mkdir()
    (wrong / "Vagrantfile").write_text(text.replace("config.vm.hostname", "config.vm.no_such_key"))
    assert validate(wrong, tmp_path).returncode != 0


def test_the_lab_has_a_disk_for_each_kind_of_region(repository: Path) -> None:
    text = (repository / "Vagrantfile").read_text()
    assert set(re.findall(r'fs: "(\w+)"', text)) == {"xfs", "btrfs", "ext4"}
    for provider in ("libvirt", "virtualbox"):
        assert f'config.vm.provider "{provider}"' in text


@pytest.mark.parametrize("name", ["REGION_SCRIPT", "SETUP_SCRIPT"])
def test_provisioning_is_clean_shell(
    name: str, repository: Path, tmp_path: Path, require: Callable[..., None]
) -> None:
    require("shellcheck")
    text = (repository / "Vagrantfile").read_text()
    match = re.search(rf"{name} = <<~'SHELL'\n(.*?)^SHELL", text, re.DOTALL | re.MULTILINE)
    assert match is not None
    script = tmp_path / "script"
    script.write_text("#!/bin/bash\n" + match[1])
    done = subprocess.run(
        [shutil.which("shellcheck") or "shellcheck", str(script)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
