"""Machines that a real libvirt has: a daemon of the test's own, as a user without rights."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.home import Session
from tests.system.libvirtd import SYSTEM, running, virsh
from tests.system.test_sources import same

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

NOBODY = 65534
DEFINE = (
    *("definition", "create", "corp/web", "--os-type", "Linux", "--os-state", "Specialized"),
    *("--publisher", "P", "--offer", "o", "--sku", "s", "--hyper-v-generation", "V1"),
)
# the backing store is declared, as virt-manager and vagrant-libvirt do; the second monitor is for
# galleria, as libvirt keeps its own to itself
DOMAIN = """<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
<name>web</name><memory unit='MiB'>32</memory>
<os><type arch='x86_64' machine='q35'>hvm</type></os>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
 <source file='{at}/top.qcow2'/><backingStore type='file'><format type='qcow2'/>
 <source file='{at}/base.qcow2'/><backingStore/></backingStore>
 <target dev='vda' bus='virtio'/></disk>
<disk type='file' device='disk'><driver name='qemu' type='raw'/>
 <source file='{at}/data.raw'/><target dev='vdb' bus='virtio'/></disk></devices>
<qemu:commandline><qemu:arg value='-qmp'/>
 <qemu:arg value='unix:{at}/qmp.sock,server=on,wait=off'/></qemu:commandline></domain>"""

PULL = """<domainbackup mode='pull'><server transport='unix' socket='{at}/open/nbd.sock'/><disks>
<disk name='vda' type='file'><scratch file='{at}/scratch'/></disk></disks></domainbackup>"""


class Libvirt:
    """A libvirtd, its machine's disks in `path`, and virsh."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uri = f"qemu:///session?socket={path}/run/libvirt/libvirt-sock"

    def answers(self) -> bool:
        argv = ["virsh", "--connect", self.uri, "uri"]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    def virsh(self, *args: str | Path) -> str:
        argv = ["virsh", "--connect", self.uri, *map(str, args)]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def libvirt(require: Callable[..., None]) -> Iterator[Libvirt]:
    require("libvirtd", "virsh", "setpriv", "qemu-img", "qemu-system-x86_64", "bwrap")
    # pytest's own directories are not for other users; a socket's path has to be short
    path = Path(tempfile.mkdtemp(prefix="galleria-"))
    for name in ("run", "config/libvirt"):
        (path / name).mkdir(parents=True)
    (path / "config/libvirt/qemu.conf").write_text('stdio_handler = "file"\n')
    kept = {"HOME": path, "XDG_RUNTIME_DIR": path / "run", "XDG_CONFIG_HOME": path / "config"}
    kept |= {"XDG_CACHE_HOME": path / "cache", "XDG_DATA_HOME": path / "data"}
    argv = ["libvirtd"]
    if os.geteuid() == 0:  # root's would be the host's own
        argv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *argv]
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", path], check=True)
    env = os.environ | {name: str(place) for name, place in kept.items()}
    made = Libvirt(path)
    with subprocess.Popen(argv, env=env, stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 30
            while not made.answers():
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield made
        finally:
            # its machines would outlive it
            subprocess.run(
                ["virsh", "--connect", made.uri, "destroy", "web"], capture_output=True, check=False
            )
            process.terminate()
            process.communicate(timeout=30)
            shutil.rmtree(path)


def disks(place: Path) -> None:
    for name, kind, more in (
        ("base.qcow2", "qcow2", ("8M",)),
        ("data.raw", "raw", ("8M",)),
        ("top.qcow2", "qcow2", ("-b", f"{place}/base.qcow2", "-F", "qcow2")),
    ):
        create = ["qemu-img", "create", "-q", "-f", kind, str(place / name), *more]
        subprocess.run(create, check=True)
        write = f"write -P {len(name)} {len(name) % 3}M 1M"
        io = ["qemu-io", "-f", kind, "-c", write, str(place / name)]
        subprocess.run(io, check=True, stdout=subprocess.DEVNULL)
    if os.geteuid() == 0:
        for path in place.iterdir():
            if path.is_file():
                os.chown(path, NOBODY, NOBODY)


def replica(home: Session, version: str) -> list[Path]:
    (status,) = home.json("show", version)["version"]["regions"]
    return [Path(disk["path"]) for disk in status["result"]["replicas"][0]["disks"]]


@pytest.fixture
def home(tmp_path: Path, libvirt: Libvirt) -> Iterator[Session]:
    settings = {"GALLERIA_LIBVIRT": libvirt.uri, "GALLERIA_IMMUTABLE": "false"}
    with Session.begun(tmp_path, **settings) as made:
        yield made


def test_a_machine_of_libvirt(home: Session, libvirt: Libvirt, tmp_path: Path) -> None:
    at = libvirt.path
    home.run("init", "--region", f"eu={tmp_path}/eu")
    home.run("gallery", "create", "corp")
    home.run(*DEFINE)
    disks(at)
    (at / "web.xml").write_text(DOMAIN.format(at=at))
    libvirt.virsh("define", at / "web.xml")

    # at rest, by its name
    (listed,) = home.json("vm", "list")["vms"]
    assert (listed["from"], listed["vm"]["name"]) == ("web", "web")
    shown = home.json("vm", "show", "web")["vm"]
    layers = [[Path(layer["file"]).name for layer in disk["layers"]] for disk in shown["disks"]]
    assert layers == [["top.qcow2", "base.qcow2"], ["data.raw"]]
    assert (shown["hyperVGeneration"], shown["running"]) == ("V1", False)
    home.run("vm", "show", "nobody", status=4)
    home.run("--quiet", "publish", "corp/web/1.0.0", "--vm", "web")
    for made, original in zip(
        replica(home, "corp/web/1.0.0"), ("top.qcow2", "data.raw"), strict=True
    ):
        same(made, at / original)

    # running: libvirt captures it, if its QEMU may write where galleria reads (not if it is another
    # user's, who is not root)
    libvirt.virsh("start", "web")
    assert "running" in home.run("vm", "show", "web").stdout
    again = ("--quiet", "publish", "corp/web/1.0.1")
    if os.geteuid() == 0:
        assert "may not write where" in home.run(*again, "--vm", "web", status=3).stderr
    else:
        home.run(*again, "--vm", "web")
        same(replica(home, "corp/web/1.0.1")[0], at / "top.qcow2")
        again = ("--quiet", "publish", "corp/web/1.0.3")
    # described by a file, the locks of its disks tell
    assert "open for writing" in home.run(*again, "--vm", str(at / "web.xml"), status=6).stderr
    home.run(*again, "--qmp", str(at / "qmp.sock"))
    same(replica(home, again[-1])[0], at / "top.qcow2")

    # an external snapshot of libvirt's: the chain is as libvirt itself declares it
    libvirt.virsh("snapshot-create-as", "web", "s1", "--disk-only", "--no-metadata")
    write = 'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "write -P 9 5M 1M"'
    assert "rror" not in libvirt.virsh("qemu-monitor-command", "--hmp", "web", write)
    libvirt.virsh("destroy", "web")
    shown = home.json("vm", "show", "web")["vm"]
    layers = [[Path(layer["file"]).name for layer in disk["layers"]] for disk in shown["disks"]]
    assert layers == [["top.s1", "top.qcow2", "base.qcow2"], ["data.s1", "data.raw"]]
    home.run("--quiet", "publish", "corp/web/1.0.2", "--vm", "web")
    (first, *_) = replica(home, "corp/web/1.0.2")
    same(first, at / "top.s1")
    found = ["qemu-io", "-f", first.suffix[1:], "-c", "read -P 9 5M 1M", str(first)]
    assert "failed" not in subprocess.run(found, capture_output=True, text=True, check=True).stdout


def layers_of(home: Session) -> list[str]:
    (first, *_) = home.json("vm", "show", "web")["vm"]["disks"]
    return [Path(layer["file"]).name for layer in first["layers"]]


def test_layers_that_the_machine_does_not_declare_are_those_of_storage_pools(
    home: Session, libvirt: Libvirt, tmp_path: Path
) -> None:
    """As vagrant-libvirt leaves a machine that is shut off: of each disk the top alone."""
    at = libvirt.path
    home.run("init", "--region", f"eu={tmp_path}/eu")
    home.run("gallery", "create", "corp")
    home.run(*DEFINE)
    disks(at)
    alone = re.sub(
        r"<backingStore type='file'>.*?<backingStore/></backingStore>", "", DOMAIN, flags=re.S
    )
    (at / "web.xml").write_text(alone.format(at=at))
    libvirt.virsh("define", at / "web.xml")
    publish = ("publish", "corp/web/1.0.0", "--vm", "web")

    # no pool knows the file: its header alone is not believed
    assert layers_of(home) == ["top.qcow2"]
    assert "--backing" in home.run(*publish, status=6).stderr

    libvirt.virsh("pool-create-as", "vms", "dir", "--target", at)
    assert layers_of(home) == ["top.qcow2", "base.qcow2"]
    told = home.run(*publish).stderr
    assert f"os: {at}/top.qcow2 over {at}/base.qcow2" in told
    same(replica(home, "corp/web/1.0.0")[0], at / "top.qcow2")

    # a header that names a file of the host's: that is no volume of a pool
    (at / "top.qcow2").unlink()
    outside = tmp_path / "secret.raw"
    outside.write_bytes(bytes(8 << 20))
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(outside), "-F", "raw"]
    subprocess.run([*create, str(at / "top.qcow2")], check=True)
    libvirt.virsh("pool-refresh", "vms")
    assert layers_of(home) == ["top.qcow2"]
    home.run("publish", "corp/web/1.0.1", "--vm", "web", status=6)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that QEMU's user may enter."""
    path = Path(tempfile.mkdtemp(prefix="galleria-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="the system's libvirt: root")
def test_a_running_machine_is_captured_by_its_libvirt(
    place: Path, tmp_path: Path, require: Callable[..., None]
) -> None:
    """Its QEMU is another user's, who may enter nothing of galleria's."""
    require("libvirtd", "virsh", "qemu-img", "qemu-system-x86_64", "bwrap")
    name = "galleria-test-live"
    disks(place)
    text = DOMAIN.format(at=place).replace("<name>web", f"<name>{name}")
    (place / "web.xml").write_text(
        re.sub("<qemu:commandline>.*</qemu:commandline>", "", text, flags=re.DOTALL)
    )
    with (
        running(tmp_path / "libvirt"),
        Session.begun(tmp_path, GALLERIA_LIBVIRT=SYSTEM, GALLERIA_IMMUTABLE="false") as home,
    ):
        home.run("init", "--region", f"eu={tmp_path}/eu")
        home.run("gallery", "create", "corp")
        home.run(*DEFINE)
        virsh("define", place / "web.xml")
        try:
            virsh("start", name)
            hmp = ("qemu-monitor-command", "--hmp", name)
            disk = "qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend"
            assert "rror" not in virsh(*hmp, f'{disk} "write -P 9 5M 1M"').stdout
            before = sorted(item.name for item in place.iterdir())
            # looked at, without a capture
            tried = home.json("publish", "corp/web/1.0.0", "--vm", name, "--dry-run")
            assert [item["virtualSize"] for item in tried["plan"]["disks"]] == [8 << 20] * 2
            assert "Completed" not in virsh("domjobinfo", name, "--completed").stdout
            said = home.run("publish", "corp/web/1.0.0", "--vm", name).stderr
            assert "crash-consistent" in said
            assert f"os: {place}/top.qcow2 over {place}/base.qcow2" in said
            found = replica(home, "corp/web/1.0.0")
            # what QEMU has written, though its file does not tell yet
            read = ["qemu-io", "-f", found[0].suffix[1:], "-c", "read -P 9 5M 1M", str(found[0])]
            assert "failed" not in subprocess.run(read, capture_output=True, text=True).stdout
            virsh(*hmp, f"{disk} flush")
            for made, original in zip(found, ("top.qcow2", "data.raw"), strict=True):
                same(made, place / original)
            # it goes on, and nothing of it is left there
            assert virsh("domstate", name).stdout.strip() == "running"
            assert "None" in virsh("domjobinfo", name).stdout
            assert sorted(item.name for item in place.iterdir()) == before
            # libvirt has one backup of a machine at a time
            (place / "open").mkdir()
            (place / "open").chmod(0o777)
            (place / "pull.xml").write_text(PULL.format(at=place))
            virsh("backup-begin", name, place / "pull.xml")
            busy = home.run("publish", "corp/web/1.0.1", "--vm", name, status=5).stderr
            assert "another job" in busy
            virsh("domjobabort", name)
            home.run("publish", "corp/web/1.0.1", "--vm", name)
        finally:
            virsh("destroy", name, check=False)
            virsh("undefine", name, check=False)
