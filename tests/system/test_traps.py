"""The traps of generalizing, and virt-sysprep in them: both tools treat copies of the same guests.

Each trap is a function that looks at a treated guest and says what is wrong with it. galleria's
result has nothing wrong; virt-sysprep's has in every trap but those of RIGHT, as far as version
1.48 is concerned (Debian 12). One run of each tool: virt-sysprep treats every system that it finds,
and galleria several guests in one appliance.

    web   systemd, sshd, no cloud-init; people in and outside /home; leases, logs, labels
    odd   System V; the machine id, ~/.ssh and other paths are links: absolute, upwards, in loops
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from dissect.target.filesystem import VirtualFilesystem
from dissect.target.filesystems.extfs import ExtFilesystem

from adapters.guestfs import fixed
from adapters.guestfs.client import GuestfsHost
from adapters.images import QemuImages
from adapters.process.sandbox import Sandbox
from fixtures.debian import default_cache
from fixtures.phony import ELF, SYSTEMD
from pipeline.guest.profiles import select
from pipeline.ports import Chain, ImageFormat, Layer
from tests.system.phony import flatten, performed, run

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="files of several owners: root"),
]
MACHINE_ID = "0123456789abcdef0123456789abcdef"
SECRET = "trap-secret"  # noqa: S105 - what is looked for
LABEL = "system_u:object_r:var_log_t:s0"
SETTINGS = "mode = kept\n"
SHARED = "/usr/share/app/settings"  # a file of the system that a link leads to
BASE: dict[str, str | bytes] = {
    "/etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n',
    "/etc/debian_version": "12.5\n",
    "/var/lib/dpkg/status": "",
    "/usr/bin/bash": ELF,
    "/usr/bin/ls": ELF,
    "/usr/sbin/sshd": ELF,
    "/usr/bin/ssh-keygen": ELF,
    "/etc/login.defs": "UID_MIN 1000\nUID_MAX 60000\n",
    "/etc/group": "root:x:0:\nadm:x:4:\nalice:x:1000:\nbob:x:1001:\n",
    "/etc/passwd": "root:x:0:0:root:/root:/bin/bash\ndbms:x:900:900::/var/lib/dbms:/bin/sh\n"
    "alice:x:1000:1000::/home/alice:/bin/bash\nbob:x:1001:1001::/srv/homes/bob:/bin/bash\n",
    "/etc/shadow": "root::19000::::::\ndbms::19000::::::\nalice:$6$a$b:1::::::\nbob::1::::::\n",
    "/etc/ssh/ssh_host_ed25519_key": SECRET,
    SHARED: SETTINGS,
}
LEASES = (
    "/var/lib/dhcp/dhclient.leases",
    "/var/lib/dhclient/dhclient-eth0.lease",
    "/var/lib/dhcpcd/eth0.lease",
    "/var/lib/NetworkManager/internal-0b-eth0.lease",
    "/var/lib/systemd/network/leases/2",
    "/var/lib/wicked/lease-eth0-dhcp-ipv4.xml",
    "/var/lib/connman/ethernet/settings",
    "/var/lib/udhcpc/lease",
)
LOGS = {  # path -> mode, owner
    "/var/log/syslog": (0o640, 0),
    "/var/log/mail.info": (0o640, 0),
    "/var/log/dbms/dbms.log": (0o600, 900),
    "/var/log/app/agent/handler.log": (0o644, 0),
    "/var/log/wtmp": (0o664, 0),
}
SECRETS_OF_BOB = (".ssh/id_rsa", ".bash_history", ".aws/credentials")
WEB = {
    "/etc/fstab": "LABEL=web / ext4 defaults 0 1\n",
    "/etc/hostname": "web-7\n",
    "/etc/machine-id": f"{MACHINE_ID}\n",
    "/var/lib/systemd/random-seed": SECRET * 40,
    **{path: content.decode() for path, content in SYSTEMD.items() if "sshd" not in path},
    # Debian's own: without keys its check fails, and sshd never starts
    "/usr/lib/systemd/system/ssh.service": "[Service]\nExecStartPre=/usr/sbin/sshd -t\n"
    "ExecStart=/usr/sbin/sshd -D\n",
    "/etc/selinux/config": "SELINUX=enforcing\nSELINUXTYPE=targeted\n",
    **{f"/srv/homes/bob/{name}": SECRET for name in SECRETS_OF_BOB},
    **dict.fromkeys(LEASES, f"lease {SECRET}\n"),
    **{path: f"line {SECRET}\n" for path in LOGS},
    "/forcefsck": "",
    "/.autorelabel": "",
}
ODD = {
    "/etc/fstab": "LABEL=odd / ext4 defaults 0 1\n",
    "/etc/inittab": "id:2:initdefault:\n",
    "/etc/init.d/ssh": "#!/bin/sh\n/usr/sbin/sshd\n",
    "/data/machine-id": f"{MACHINE_ID}\n",
    "/data/keys/id_rsa": SECRET,
    "/data/leases/dhclient.leases": SECRET,
    "/data/history": SECRET,
}
ODD_LINKS = {
    "/etc/machine-id": "/data/machine-id",
    "/home/alice/.ssh": "/data/keys",
    "/root/.bash_history": "../data/history",
    "/var/lib/dhcp": "/data/leases",
    "/root/.viminfo": SHARED,  # the target is the system's: it stays
    "/etc/hostname": SHARED,  # a write would destroy it
    "/var/log/loop": "loop",
    "/home/alice/.netrc": "../alice/.pgpass",
    "/home/alice/.pgpass": ".netrc",
    "/etc/rc2.d/S01ssh": "../init.d/ssh",
}


class Seen:
    """A treated guest's root file system, read by dissect: links are resolved inside of it."""

    def __init__(self, disk: Path) -> None:
        self.disk = disk
        self._file = disk.open("rb")
        root = VirtualFilesystem()
        root.mount("/", ExtFilesystem(self._file))
        self._root = root

    def close(self) -> None:
        self._file.close()

    def there(self, path: str) -> bool:
        """Also a link that leads nowhere."""
        directory, _, name = path.rpartition("/")
        return self._root.path(directory or "/").is_dir() and name in (
            found.name for found in self._root.path(directory or "/").iterdir()
        )

    def text(self, path: str) -> str:
        found = self._root.path(path)
        return found.read_text(errors="replace") if found.is_file() else ""

    def names(self, path: str) -> list[str]:
        found = self._root.path(path)
        return [item.name for item in found.iterdir()] if found.is_dir() else []

    def owner(self, path: str) -> tuple[int, int]:
        stat = self._root.path(path).stat()
        return stat.st_mode & 0o7777, stat.st_uid

    def label(self, path: str) -> str:
        said = run("debugfs", "-R", f"ea_get -V {path} security.selinux", self.disk)
        return said.strip().removesuffix("\\0")


def machine_id(web: Seen) -> list[str]:
    found = web.text("/etc/machine-id").strip()
    return [] if found in ("", "uninitialized") else [f"every clone is {found}"]


def random_seed(web: Seen) -> list[str]:
    found = [p for p in ("/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed")
             if web.text(p)]  # fmt: skip
    return [f"{path} is the same in every clone" for path in found]


def host_keys(web: Seen) -> list[str]:
    if "ssh_host_ed25519_key" in web.names("/etc/ssh"):
        return ["every clone has the same host key"]
    drop_ins = "/etc/systemd/system/ssh.service.d"
    made = [
        name for name in web.names(drop_ins) if "ssh-keygen -A" in web.text(f"{drop_ins}/{name}")
    ]
    return [] if made else ["the host keys are gone, and nothing makes new ones"]


def host_keys_of_system_v(odd: Seen) -> list[str]:
    if "ssh_host_ed25519_key" in odd.names("/etc/ssh"):
        return ["every clone has the same host key"]
    first = min(odd.names("/etc/rc2.d"), default="")
    made = "ssh-keygen -A" in odd.text(f"/etc/rc2.d/{first}")
    return [] if made else ["the host keys are gone, and nothing makes new ones"]


def homes_elsewhere(web: Seen) -> list[str]:
    return [name for name in SECRETS_OF_BOB if web.text(f"/srv/homes/bob/{name}")]


def empty_passwords(web: Seen) -> list[str]:
    rows = [line.split(":") for line in web.text("/etc/shadow").splitlines()]
    return [f"{row[0]} needs no password" for row in rows if not row[1]]


def logs_are_kept(web: Seen) -> list[str]:
    wrong = [f"{path} is gone" for path in LOGS if not web.there(path)]
    kept = [path for path in LOGS if web.there(path)]
    wrong += [f"{path} has another owner or mode" for path in kept if web.owner(path) != LOGS[path]]
    return wrong + [f"{path} has lost its label" for path in kept if web.label(path) != LABEL]


def logs_are_empty(web: Seen) -> list[str]:
    return [path for path in LOGS if SECRET in web.text(path)]


def log_directories(web: Seen) -> list[str]:
    wrong = [path for path in LOGS if not web.there(str(Path(path).parent))]
    return wrong + ([] if web.owner("/var/log/dbms") == (0o750, 900) else ["/var/log/dbms"])


def dhcp_clients(web: Seen) -> list[str]:
    return [path for path in LEASES if web.there(path)]


def boot_flags(web: Seen) -> list[str]:
    return [path for path in ("/forcefsck", "/.autorelabel") if web.there(path)]


def linked_machine_id(odd: Seen) -> list[str]:
    wrong = [p for p in ("/data/machine-id", "/etc/machine-id") if odd.text(p).strip()]
    return [f"every clone is {odd.text(path).strip()} by {path}" for path in wrong]


def linked_keys(odd: Seen) -> list[str]:
    return [path for path in ("/data/keys/id_rsa",) if odd.text(path)]


def linked_history(odd: Seen) -> list[str]:
    return [path for path in ("/data/history",) if odd.text(path)]


def linked_leases(odd: Seen) -> list[str]:
    return [path for path in ("/data/leases/dhclient.leases",) if odd.text(path)]


def redirected(odd: Seen) -> list[str]:
    return [] if odd.text(SHARED) == SETTINGS else [f"{SHARED} was changed through a link"]


def loops(odd: Seen) -> list[str]:
    """Nothing hangs or fails, and credentials that are links to each other are gone."""
    return [p for p in ("/home/alice/.netrc", "/home/alice/.pgpass") if odd.there(p)]


def deleted(seen: Seen) -> list[str]:
    """What was removed must not be in the bytes either."""
    found = seen.disk.read_bytes().count(SECRET.encode())
    return [f"{found} times in the disk's bytes"] if found else []


Trap = Callable[[Seen], list[str]]
TRAPS: Mapping[str, tuple[Trap, ...]] = {
    "web": (
        *(machine_id, random_seed, host_keys, homes_elsewhere, empty_passwords, logs_are_kept),
        *(logs_are_empty, log_directories, dhcp_clients, boot_flags, deleted),
    ),
    "odd": (
        *(host_keys_of_system_v, linked_machine_id, linked_keys, linked_history, linked_leases),
        *(redirected, loops, deleted),
    ),
}
RIGHT = (log_directories, redirected)
CASES = [pytest.param(name, trap, id=f"{name}-{trap.__name__}")
         for name, traps in TRAPS.items() for trap in traps]  # fmt: skip


def build(name: str, work: Path) -> Path:
    root = work / name
    files = BASE | (WEB if name == "web" else ODD)
    for path, content in files.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    links = {"/bin": "usr/bin", **(ODD_LINKS if name == "odd" else {})}
    for path, leads in links.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(leads)
    for home, owner in (("home/alice", 1000), ("srv/homes/bob", 1001)):
        (root / home).mkdir(parents=True, exist_ok=True)
        os.chown(root / home, owner, owner)
    if name == "web":
        for path, (mode, owner) in LOGS.items():
            (root / path.lstrip("/")).chmod(mode)
            os.chown(root / path.lstrip("/"), owner, 4)
        (root / "var/log/dbms").chmod(0o750)
        os.chown(root / "var/log/dbms", 900, 4)
    disk = work / f"{name}.raw"
    run("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-L", name, "-d", root, disk, "48M")
    if name == "web":
        labels = [f"ea_set {path} security.selinux {LABEL}" for path in (*LOGS, "/var/log", "/etc")]
        run("debugfs", "-w", "-f", "-", disk, stdin="\n".join(labels))
    return disk


@dataclass
class Treated:
    galleria: Mapping[str, Seen]
    virt_sysprep: Mapping[str, Seen]


@pytest.fixture(scope="module")
def treated(
    tmp_path_factory: pytest.TempPathFactory, require: Callable[..., None]
) -> Iterator[Treated]:
    require("virt-sysprep", "debugfs")
    work = tmp_path_factory.mktemp("traps")
    disks = {name: build(name, work) for name in TRAPS}
    images = QemuImages(Sandbox())
    chains: list[Chain] = [
        images.create_overlay((Layer(path, ImageFormat.RAW),), path.with_suffix(".qcow2"))
        for path in disks.values()
    ]
    host = GuestfsHost(Sandbox(), default_cache())
    spaces = []
    with host.session(chains, writable=True) as session:
        for index in range(len(disks)):
            part = session.part(index)
            performed(part, select())
            spaces.append(part.free_ranges(zero_rest=True).disks[index])
    ours = {
        name: Seen(flatten(chain[0].path, disks[name], work / f"{name}.out", space))
        for (name, chain, space) in zip(disks, chains, spaces, strict=True)
    }
    virt_sysprep(host, list(disks.values()))
    theirs = {name: Seen(path) for name, path in disks.items()}
    yield Treated(ours, theirs)
    for seen in (*ours.values(), *theirs.values()):
        seen.close()
        seen.disk.unlink()


def virt_sysprep(host: GuestfsHost, disks: list[Path]) -> None:
    """As a person runs it, with its defaults, on what were the sources of galleria's overlays."""
    kind = host.accelerator().kind
    words = [word for disk in disks for word in ("--format", "raw", "-a", str(disk))]
    with fixed.appliance(default_cache()) as appliance:
        env = {
            **os.environ,
            "LIBGUESTFS_BACKEND": "direct",
            "LIBGUESTFS_BACKEND_SETTINGS": f"force_{kind}",
            "LIBGUESTFS_PATH": str(appliance),
        }
        done = subprocess.run(
            ["virt-sysprep", *words], env=env, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert re.search("Performing", done.stdout)


@pytest.mark.parametrize(("name", "trap"), CASES)
def test_galleria_is_right(treated: Treated, name: str, trap: Trap) -> None:
    assert trap(treated.galleria[name]) == []


@pytest.mark.parametrize(("name", "trap"), CASES)
def test_virt_sysprep_is_in_the_trap(treated: Treated, name: str, trap: Trap) -> None:
    wrong = trap(treated.virt_sysprep[name])
    assert (wrong == []) == (trap in RIGHT), wrong
