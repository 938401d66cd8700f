"""Vagrant itself with boxes and catalogs of galleria's: it adds, compares and updates boxes; and at
night starts machines of one, which are halted and published again, and the lab of the top-level
Vagrantfile.

The nightly tests start a libvirtd of the system, where none runs: vagrant-libvirt knows no other.
"""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures import guests, lab
from tests.home import GALLERIA, Home
from tests.system.libvirtd import running, virsh

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

DEFINE = (
    *("definition", "create", "corp/web", "--os-type", "Linux", "--publisher", "P"),
    *("--offer", "o", "--sku", "s", "--hyper-v-generation", "V1"),
)
ROOT = Path(__file__).parents[2]
# of every machine, before what its project says: a host need not have KVM
EMULATED = """Vagrant.configure("2") do |config|
  config.vm.boot_timeout = 1200
  config.vm.provider :libvirt do |libvirt|
    libvirt.driver = "qemu"
    libvirt.cpu_mode = "custom"
    libvirt.cpu_model = "qemu64"
    libvirt.default_prefix = "galleria-test-"
  end
end
"""
TWO = """Vagrant.configure("2") do |config|
  config.vm.box = "corp/web"
  config.vm.define "one"
  config.vm.define "two"
end
"""
# what somebody does in the lab: a version in all of its regions
LAB = """set -e
cd galleria
truncate -s 64M os.raw
echo content | dd of=os.raw bs=1M seek=1 conv=notrunc
scripts/run gallery create corp
scripts/run definition create corp/web --os-type Linux --os-state Specialized \\
  --publisher P --offer o --sku s --hyper-v-generation V1
scripts/run publish corp/web/1.0.0 --os-disk os.raw \\
  --target-region eu=1 --target-region us=1 --target-region asia=1
scripts/run list corp/web
"""


class Vagrant:
    """Vagrant with a home of its own, in a directory of its own, which is also its project."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "vagrant.d").mkdir(parents=True)
        (place / "vagrant.d/Vagrantfile").write_text(EMULATED)
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(place),
            "VAGRANT_HOME": str(place / "vagrant.d"),
            "VAGRANT_DOTFILE_PATH": str(place / ".vagrant"),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "LC_ALL": "C.UTF-8",
        }

    def run(self, *args: str) -> str:
        done = subprocess.run(
            ["vagrant", *args],
            cwd=self.place,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def box(self, version: str) -> Path:
        """The disk of an added box."""
        name = f"corp-VAGRANTSLASH-web/{version}/libvirt/box.img"
        return self.place / "vagrant.d/boxes" / name


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "home").mkdir()
    made = Home(tmp_path / "home")
    made.run("init", "--region", "eu=eu")
    return made


@pytest.fixture
def vagrant(tmp_path: Path, require: Callable[..., None]) -> Vagrant:
    require("vagrant", "qemu-img", "bwrap")
    return Vagrant(tmp_path / "vagrant")


@contextlib.contextmanager
def served(home: Home) -> Iterator[str]:
    """The catalogs' address, while they are served."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    argv = [str(GALLERIA), "serve", "vagrant", "--listen", address]
    with subprocess.Popen(argv, env=home.env, cwd=home.path) as process:
        try:
            for _ in range(300):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://{address}/").close()
                    break
                assert process.poll() is None
                time.sleep(0.1)
            yield f"http://{address}"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)


def disk_of(path: Path, byte: int) -> Path:
    """Some data that no program takes for a format, at the end of a disk."""
    with path.open("wb") as file:
        file.truncate(64 << 20)
        file.seek(1 << 20)
        file.write(bytes([byte]) * (1 << 20))
    return path


def same(one: Path, other: Path) -> None:
    compare = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(one), str(other)]
    subprocess.run(compare, check=True, capture_output=True)


def digest(home: Home, version: str) -> str:
    found: str = home.json("show", version)["version"]["disks"][0]["digest"]
    return found


def test_vagrant_adds_compares_and_updates_boxes(
    home: Home, vagrant: Vagrant, tmp_path: Path
) -> None:
    home.run("gallery", "create", "corp")
    home.run(*DEFINE, "--os-state", "Specialized")
    disks = [disk_of(tmp_path / f"{number}.raw", 17 + number) for number in range(2)]
    publish = ("--target-region", "eu=1", "--os-disk")
    home.run("publish", "corp/web/1.0.0", *publish, str(disks[0]))
    with served(home) as url:
        vagrant.run("box", "add", f"{url}/corp/web", "--provider", "libvirt")
        same(disks[0], vagrant.box("1.0.0"))
        home.run("publish", "corp/web/1.1.0", *publish, str(disks[1]))
        assert "Current: 1.0.0. Latest: 1.1.0" in vagrant.run("box", "outdated", "--global")
        vagrant.run("box", "update", "--box", "corp/web", "--provider", "libvirt")
        same(disks[1], vagrant.box("1.1.0"))
        home.env["GALLERIA_ALLOW_PRIVATE_SOURCES"] = "127.0.0.1/32"
        again = ("--box", f"{url}/corp/web#1.1.0:libvirt")
        home.run("publish", "corp/web/2.0.0", "--target-region", "eu=1", *again)
    assert digest(home, "corp/web/2.0.0") == digest(home, "corp/web/1.1.0")


def test_vagrant_reads_catalogs_that_are_files(
    home: Home, vagrant: Vagrant, tmp_path: Path
) -> None:
    home.run("gallery", "create", "corp")
    home.run(*DEFINE, "--os-state", "Specialized")
    disk = disk_of(tmp_path / "os.raw", 5)
    home.run("publish", "corp/web/1.0.0", "--target-region", "eu=1", "--os-disk", str(disk))
    home.run("export", "catalog", "--out", str(tmp_path / "www"))
    (box,) = (tmp_path / "www").glob("corp/web/1.0.0/*.box")
    found = home.json("inspect", str(box))
    assert (found["archive"], found["architecture"]) == ("box", "x64")
    assert [item["facts"]["virtualSize"] for item in found["disks"]] == [64 << 20]
    assert "box.img" in home.run("inspect", str(box)).stdout
    vagrant.run("box", "add", f"{(tmp_path / 'www/corp/web.json').as_uri()}")
    same(disk, vagrant.box("1.0.0"))
    home.env["VAGRANT_HOME"] = str(vagrant.place / "vagrant.d")
    home.run("publish", "corp/web/2.0.0", "--target-region", "eu=1", "--box", "corp/web")
    assert digest(home, "corp/web/2.0.0") == digest(home, "corp/web/1.0.0")


@contextlib.contextmanager
def machines(vagrant: Vagrant, box: str) -> Iterator[None]:
    """Destroys what came up of a box, and the volumes that it was copied to."""
    try:
        yield
    finally:
        vagrant.run("destroy", "-f")
        for line in virsh("vol-list", "default", check=False).stdout.splitlines():
            if f"{box.replace('/', '-VAGRANTSLASH-')}_vagrant_box" in line:
                virsh("vol-delete", line.split()[0], "default", check=False)
        shutil.rmtree(vagrant.place)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.skipif(os.geteuid() != 0, reason="the system's libvirt, chroot: root")
def test_machines_of_a_box_come_up_and_one_goes_in_again(
    home: Home, vagrant: Vagrant, tmp_path: Path, require: Callable[..., None]
) -> None:
    require("libvirtd", "virsh", "dnsmasq", "qemu-system-x86_64")
    guest = guests.build("netplan")
    home.run("gallery", "create", "corp")
    home.run(*DEFINE, "--minimum-memory", "512", "--minimum-cpu-core", "1")
    publish = ("--target-region", "eu=1")
    data = disk_of(tmp_path / "data.raw", 7)
    disks = ("--os-disk", str(guest.disk), "--data-disk", f"0={data}")
    home.run("publish", "corp/web/1.0.0", *publish, *disks)
    (vagrant.place / "Vagrantfile").write_text(TWO)
    with running(tmp_path / "libvirt"), served(home) as url, machines(vagrant, "corp/web"):
        vagrant.run("box", "add", f"{url}/corp/web", "--provider", "libvirt")
        vagrant.run("up", "--provider", "libvirt")
        said = [
            vagrant.run("ssh", name, "-c", "cat /etc/machine-id; sudo id -u; hostname")
            for name in ("one", "two")
        ]
        ids = [re.findall(r"^[0-9a-f]{32}", text, re.MULTILINE) for text in said]
        assert ids[0] != ids[1]
        assert [len(found) for found in ids] == [1, 1]
        assert all(re.search(r"^0\r?$", text, re.MULTILINE) for text in said)  # sudo
        summed = vagrant.run("ssh", "two", "-c", "sudo sha256sum /dev/vdb")
        assert hashlib.sha256(data.read_bytes()).hexdigest() in summed
        vagrant.run("ssh", "one", "-c", "echo changed | sudo tee /srv/changed; sync")
        vagrant.run("halt", "one")
        told = home.run("vm", "show", "galleria-test-one").stdout
        # the volumes of the box, from the pool
        assert all(f"box_image_1.0.0_box_{number}.img" in told for number in (1, 2))
        again = ("--vm", "galleria-test-one", "--profile", "vagrant")
        home.run("publish", "corp/web/1.1.0", *publish, *again)
        assert "Latest: 1.1.0" in vagrant.run("box", "outdated", "--global")


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.skipif(os.geteuid() != 0, reason="the system's libvirt, chroot: root")
def test_the_lab_comes_up_of_a_box(
    home: Home, vagrant: Vagrant, tmp_path: Path, require: Callable[..., None]
) -> None:
    """The top-level Vagrantfile as it is, but for doctor, which starts a machine in the machine:
    emulated in an emulated one, that takes longer than it waits."""
    require("libvirtd", "virsh", "dnsmasq", "qemu-system-x86_64", "rsync")
    home.run("gallery", "create", "corp")
    home.run(*DEFINE)
    home.run("publish", "corp/web/1.0.0", "--target-region", "eu=1", "--os-disk", str(lab.build()))
    home.run("export", "corp/web/1.0.0", "--to", "box", "--out", "lab.box")
    vagrant.run("box", "add", "--name", "corp/lab", str(home.path / "lab.box"))
    vagrant.env |= {"VAGRANT_CWD": str(ROOT), "GALLERIA_BOX": "corp/lab"}
    with running(tmp_path / "libvirt"), machines(vagrant, "corp/lab"):
        wanted = "region eu,region us,region asia,set up"
        vagrant.run("up", "--provider", "libvirt", "--provision-with", wanted)
        mounts = vagrant.run("ssh", "-c", "findmnt --noheadings --list --output TARGET,FSTYPE")
        for region, kind in (("eu", "xfs"), ("us", "btrfs"), ("asia", "ext4")):
            assert re.search(rf"/srv/regions/{region} +{kind}", mounts)
        *_, listed = vagrant.run("ssh", "-c", LAB).split("published corp/web/1.0.0")
        (row,) = re.findall(r"^corp/web/1\.0\.0 .*", listed, re.MULTILINE)
        assert all(region in row for region in ("eu", "us", "asia"))
