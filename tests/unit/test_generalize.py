"""Each operation: planted state in, expected state out, on the in-memory guest."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline.errors import InvalidParameter, Refused, StageFailed
from pipeline.guest.checks import looks_generalized
from pipeline.guest.generalize import generalize
from pipeline.guest.operations import (
    Action,
    Context,
    Editor,
    Operation,
    Policy,
    Script,
    Users,
    families_of,
)
from pipeline.guest.profiles import OPERATIONS, PROFILES, Plan, select
from pipeline.guest.selinux import Labels
from pipeline.ports import GuestFacts, Meter
from pipeline.ports.extents import Range
from tests import table
from tests.contract.memory_guest import MemoryGuest, MemoryHost

TMP = "/tmp"  # noqa: S108 - the guest's
ACCOUNTS = """\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
svc:x:900:900::/var/lib/svc:/bin/sh
alice:x:1000:1000:Alice:/home/alice:/bin/bash
bob:x:1001:1001:Bob:/srv/homes/bob:/bin/bash
"""
SHADOW = """\
root:$y$secret-root:19000:0:99999:7:::
daemon:*:19000:0:99999:7:::
nobody:*:19000:0:99999:7:::
svc::19000:0:99999:7:::
alice:$y$secret-alice:19000:0:99999:7:::
bob:!$y$secret-bob:19000:0:99999:7:::
"""
GROUP = """\
root:x:0:
sudo:x:27:alice,root,bob
nogroup:x:65534:
alice:x:1000:
bob:x:1001:
docker:x:998:svc,alice
"""
GSHADOW = """\
root:*::
sudo:*:alice:alice,root,bob
alice:!::
bob:!::
docker:!::svc,alice
"""


class Quiet:
    @contextmanager
    def stage(self, name: str, total: int = 0, unit: str = "B") -> Iterator[Meter]:
        yield self

    def advance(self, amount: int) -> None: ...
    def note(self, message: str) -> None: ...
    def warn(self, message: str) -> None: ...


@pytest.fixture
def guest() -> MemoryGuest:
    """A used Debian, as far as accounts and systemd go."""
    made = MemoryGuest()
    made.plant("/etc/passwd", ACCOUNTS)
    made.plant("/etc/shadow", SHADOW, mode=0o640)
    made.plant("/etc/group", GROUP)
    made.plant("/etc/gshadow", GSHADOW, mode=0o640)
    made.plant("/etc/subuid", "alice:100000:65536\n1001:165536:65536\nsvc:231072:65536\n")
    made.plant("/etc/subgid", "alice:100000:65536\nbob:165536:65536\n")
    made.plant("/usr/lib/systemd/systemd", "ELF")
    made.plant_directory("/root")
    made.plant_directory("/var/lib/svc")
    for name, home, uid in (("alice", "/home/alice", 1000), ("bob", "/srv/homes/bob", 1001)):
        made.plant_directory("/srv/homes")
        made.plant(f"{home}/.bash_history", f"secret of {name}", uid=uid)
        made.plant(f"{home}/.ssh/id_rsa", "key", uid=uid)
        made.plant(f"{home}/.ssh/authorized_keys", "key", uid=uid)
        made.plant(f"{home}/.aws/credentials", "secret", uid=uid)
        made.plant(f"{home}/work", "kept", uid=uid)
    return made


def run(
    guest: MemoryGuest, *names: str, policy: Policy | None = None, hostname: str = "oldbox"
) -> list[tuple[Action, str]]:
    """Perform these operations and return what they say that they did."""
    facts = GuestFacts(os_type="linux", hostname=hostname)
    context = Context(facts, policy or Policy())
    changes = []
    for operation in select(only=names).operations:
        edit = Editor(guest, operation.name)
        operation.perform(edit, context)
        changes += [(change.action, change.path) for change in edit.changes]
        again = Editor(guest, operation.name)
        operation.perform(again, context)
        assert again.changes == [], f"{operation.name} is not idempotent"
    return changes


def text(guest: MemoryGuest, path: str) -> str:
    return guest.read(path).decode()


def test_machine_id_is_emptied_and_dbus_copy_removed(guest: MemoryGuest) -> None:
    guest.plant("/etc/machine-id", "0123456789abcdef\n", mode=0o444)
    guest.plant("/var/lib/dbus/machine-id", "0123456789abcdef\n")
    changes = run(guest, "machine-id")
    found = guest.stat("/etc/machine-id")
    assert found is not None
    assert (found.kind, found.length, found.mode) == ("file", 0, 0o444)
    assert guest.stat("/var/lib/dbus/machine-id") is None
    assert changes == [
        (Action.TRUNCATED, "/etc/machine-id"),
        (Action.REMOVED, "/var/lib/dbus/machine-id"),
    ]


@pytest.mark.parametrize("target", ["/data/id", "../data/id", "/data/link"])
def test_linked_machine_id_is_emptied_where_it_really_is(guest: MemoryGuest, target: str) -> None:
    guest.plant("/data/id", "0123456789abcdef")
    guest.symlink("id", "/data/link")
    guest.symlink(target, "/etc/machine-id")
    guest.plant_directory("/var/lib/dbus")
    guest.symlink("/etc/machine-id", "/var/lib/dbus/machine-id")
    assert run(guest, "machine-id") == [(Action.TRUNCATED, "/data/id")]
    assert guest.readlink("/var/lib/dbus/machine-id") == "/etc/machine-id"


def test_looped_machine_id_does_no_harm(guest: MemoryGuest) -> None:
    guest.symlink("/etc/machine-id", "/etc/machine-id")
    assert run(guest, "machine-id") == []


@pytest.mark.parametrize("path", ["/etc/machine-id", "/etc/hostname"])
def test_a_value_is_not_written_through_a_link_to_something_else(
    guest: MemoryGuest, path: str
) -> None:
    guest.plant("/usr/lib/systemd/systemd")
    guest.plant("/etc/accounts", "root:x:0:0\n")
    guest.symlink("accounts", path)
    run(guest, "machine-id", "hostname")
    assert text(guest, "/etc/accounts") == "root:x:0:0\n"
    found = guest.stat(path)
    assert found is not None
    assert found.kind == "file"
    assert text(guest, path) in ("", "localhost\n")


@pytest.mark.parametrize(("link", "target"), [("/var/log", "/etc"), (TMP, "/var/lib"), (TMP, "/")])
def test_the_system_is_not_emptied_through_a_link(
    guest: MemoryGuest, link: str, target: str
) -> None:
    guest.plant("/etc/passwd", ACCOUNTS)
    guest.plant("/var/lib/dpkg/status", "kept")
    guest.remove(link)
    guest.symlink(target, link)
    with pytest.raises(Refused, match="is not removed"):
        run(guest, "logs" if link == "/var/log" else "temporary-files")
    assert text(guest, "/etc/passwd") == ACCOUNTS
    assert text(guest, "/var/lib/dpkg/status") == "kept"


@pytest.mark.parametrize("target", ["/data/log", "/srv/app/log", "../run/log"])
def test_harmless_links_of_directories_are_followed(guest: MemoryGuest, target: str) -> None:
    guest.plant(f"/{target.removeprefix('../').lstrip('/')}/app", "line")
    guest.remove("/var/log")
    guest.symlink(target, "/var/log")
    run(guest, "logs")
    assert text(guest, "/var/log/app") == ""


def test_absent_machine_id_is_made_empty_for_systemd(guest: MemoryGuest) -> None:
    run(guest, "machine-id")
    assert text(guest, "/etc/machine-id") == ""


def test_host_keys_go_and_a_drop_in_brings_new_ones(guest: MemoryGuest) -> None:
    guest.plant("/usr/sbin/sshd")
    guest.plant("/usr/bin/ssh-keygen")
    guest.plant(
        "/usr/lib/systemd/system/ssh.service", "[Service]\nExecStartPre=/usr/sbin/sshd -t\n"
    )
    guest.symlink("/usr/lib/systemd/system/ssh.service", "/usr/lib/systemd/system/sshd.service")
    guest.plant("/etc/ssh/ssh_host_rsa_key", "k")
    guest.plant("/etc/ssh/ssh_host_rsa_key.pub", "k")
    guest.plant("/etc/ssh/sshd_config", "c")
    run(guest, "ssh-host-keys")
    assert guest.names("/etc/ssh") == ["sshd_config"]
    drop_in = text(guest, "/etc/systemd/system/ssh.service.d/50-galleria-host-keys.conf")
    lines = [line for line in drop_in.splitlines() if not line.startswith("#")]
    assert lines == [
        "[Service]",
        "ExecStartPre=",
        "ExecStartPre=/usr/bin/ssh-keygen -A",
        "ExecStartPre=/usr/sbin/sshd -t",
    ]
    assert guest.names("/etc/systemd/system") == ["ssh.service.d"]


def test_host_keys_stay_where_nothing_would_make_new_ones(guest: MemoryGuest) -> None:
    guest.plant("/usr/sbin/sshd")
    guest.plant("/usr/bin/ssh-keygen")
    guest.plant("/etc/ssh/ssh_host_rsa_key", "k")
    with pytest.raises(StageFailed, match="make new host keys") as caught:
        run(guest, "ssh-host-keys")
    assert "--skip ssh-host-keys" in caught.value.hint
    assert guest.stat("/etc/ssh/ssh_host_rsa_key") is not None


@pytest.mark.parametrize(
    "path",
    [
        "/etc/init.d/sshd",  # OpenRC
        "/etc/init.d/S50sshd",  # Buildroot
        "/etc/rc.d/rc.sshd",  # Slackware
        "/etc/sv/sshd/run",  # runit
        "/etc/s6/sv/sshd/run",
        "/etc/dinit.d/sshd-keygen",
    ],
)
def test_start_up_that_makes_keys_is_guarantee_enough(guest: MemoryGuest, path: str) -> None:
    guest.plant("/usr/sbin/sshd")
    guest.plant("/usr/bin/ssh-keygen")
    guest.plant(path, "#!/bin/sh\nssh-keygen -A\n")
    guest.plant("/etc/ssh/ssh_host_rsa_key", "k")
    assert run(guest, "ssh-host-keys") == [(Action.REMOVED, "/etc/ssh/ssh_host_rsa_key")]


def test_busybox_init_gets_a_line_before_it_starts_services(guest: MemoryGuest) -> None:
    guest.plant("/usr/sbin/sshd")
    guest.plant("/usr/bin/ssh-keygen")
    guest.plant(
        "/etc/inittab",
        "::sysinit:/bin/mount -a\n::sysinit:/etc/init.d/rcS\ntty1::respawn:/sbin/getty\n",
    )
    guest.plant("/etc/ssh/ssh_host_rsa_key", "k")
    assert run(guest, "ssh-host-keys") == [
        (Action.WRITTEN, "/etc/inittab"),
        (Action.REMOVED, "/etc/ssh/ssh_host_rsa_key"),
    ]
    assert text(guest, "/etc/inittab").splitlines()[:3] == [
        "::sysinit:/bin/mount -a",
        "::sysinit:/usr/bin/ssh-keygen -A",
        "::sysinit:/etc/init.d/rcS",
    ]


@pytest.mark.parametrize(
    ("path", "content", "drop_in"),
    [
        ("/lib/systemd/system/dropbear.service", "[Service]\nExecStart=dropbear -EF $X\n", True),
        ("/lib/systemd/system/dropbear.service", "[Service]\nExecStart=dropbear -EFR\n", False),
        ("/etc/init.d/S50dropbear", 'DROPBEAR_ARGS="$DROPBEAR_ARGS -R"\n', False),
    ],
)
def test_dropbear_makes_new_keys(
    guest: MemoryGuest, path: str, content: str, drop_in: bool
) -> None:
    guest.plant("/usr/sbin/dropbear")
    guest.plant(path, content)
    guest.plant("/etc/dropbear/dropbear_rsa_host_key", "k")
    run(guest, "ssh-host-keys")
    assert guest.names("/etc/dropbear") == []
    made = guest.glob("/etc/systemd/system/dropbear.service.d/*")
    assert bool(made) == drop_in
    if made:
        assert "dropbearkey -t $$t" in text(guest, made[0])


def test_dropbear_keeps_keys_that_nothing_would_make(guest: MemoryGuest) -> None:
    guest.plant("/usr/sbin/dropbear")
    guest.plant("/etc/dropbear/dropbear_rsa_host_key", "k")
    with pytest.raises(StageFailed, match="dropbear"):
        run(guest, "ssh-host-keys")
    assert guest.names("/etc/dropbear") == ["dropbear_rsa_host_key"]


def test_secrets_go_from_every_home_wherever_it_is(guest: MemoryGuest) -> None:
    guest.plant("/root/.python_history", "secret")
    guest.plant("/var/lib/svc/.pgpass", "secret")
    guest.plant("/home/orphan/.netrc", "secret")  # its account is gone
    run(guest, "shell-history", "ssh-user-keys", "ssh-authorized-keys", "user-credentials")
    for home in ("/home/alice", "/srv/homes/bob"):
        assert guest.names(home) == [".ssh", "work"]
        assert guest.names(f"{home}/.ssh") == []
    assert guest.names("/root") == guest.names("/var/lib/svc") == guest.names("/home/orphan") == []


def test_authorized_keys_are_an_operation_of_their_own(guest: MemoryGuest) -> None:
    run(guest, "ssh-user-keys")
    assert guest.names("/home/alice/.ssh") == ["authorized_keys"]


def test_linked_ssh_directory_does_not_keep_its_keys(guest: MemoryGuest) -> None:
    guest.remove("/home/alice/.ssh")
    guest.plant("/data/keys/id_ed25519", "key")
    guest.symlink("../../data/keys", "/home/alice/.ssh")
    changes = run(guest, "ssh-user-keys")
    assert (Action.REMOVED, "/data/keys/id_ed25519") in changes


def test_links_of_secrets_take_their_targets_but_never_the_system(guest: MemoryGuest) -> None:
    guest.plant("/data/netrc", "secret")
    guest.symlink("/data/netrc", "/home/alice/.netrc")
    guest.plant("/dev/null", "")
    guest.remove("/home/alice/.bash_history")
    guest.symlink("/dev/null", "/home/alice/.bash_history")
    guest.symlink("/etc/passwd", "/home/alice/.pgpass")
    guest.plant("/etc/ssh/ssh_config", "c")
    guest.remove("/srv/homes/bob/.ssh")
    guest.symlink("/etc/ssh", "/srv/homes/bob/.ssh")
    run(guest, "shell-history", "ssh-user-keys", "user-credentials")
    assert guest.stat("/data/netrc") is None
    assert ".pgpass" not in guest.names("/home/alice")
    for path in ("/dev/null", "/etc/passwd", "/etc/ssh/ssh_config"):
        assert guest.stat(path) is not None


def test_removed_users_leave_no_trace_in_any_account_file(guest: MemoryGuest) -> None:
    guest.plant("/etc/sudoers", "root ALL=(ALL) ALL\nalice ALL=(ALL) ALL\n")
    guest.plant("/etc/sudoers.d/waagent", "# made by\nalice ALL=(ALL) NOPASSWD:ALL\n")
    guest.plant("/etc/sudoers.d/both", "bob ALL=ALL\nsvc ALL=ALL\n")
    guest.plant("/var/spool/cron/crontabs/bob", "* * * * * x")
    guest.plant("/var/spool/cron/atjobs/a0001", "job", uid=1001)
    guest.plant("/var/mail/alice", "mail")
    run(guest, "user-accounts")
    assert guest.stat("/home/alice") is None
    assert guest.stat("/srv/homes/bob") is None
    assert guest.names("/srv/homes") == []
    for path in ("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/subgid"):
        assert "alice" not in text(guest, path)
        assert "bob" not in text(guest, path)
    assert text(guest, "/etc/subuid") == "svc:231072:65536\n"  # bob's was by number
    assert "sudo:x:27:root\n" in text(guest, "/etc/group")
    assert "docker:x:998:svc\n" in text(guest, "/etc/group")
    assert "sudo:*::root\n" in text(guest, "/etc/gshadow")
    assert text(guest, "/etc/sudoers") == "root ALL=(ALL) ALL\n"
    assert guest.names("/etc/sudoers.d") == ["both"]
    assert text(guest, "/etc/sudoers.d/both") == "svc ALL=ALL\n"
    assert guest.names("/var/mail") == guest.names("/var/spool/cron/crontabs") == []
    assert guest.names("/var/spool/cron/atjobs") == []
    found = guest.stat("/etc/shadow")
    assert found is not None
    assert found.mode == 0o640


def test_homes_of_others_and_of_the_system_are_never_removed(guest: MemoryGuest) -> None:
    guest.plant(
        "/etc/passwd",
        ACCOUNTS
        + "carol:x:1002:1002::/usr/share/carol:/bin/sh\n"
        + "dave:x:1003:1003::/srv/homes:/bin/sh\n"
        + "erin:x:1004:1004::/:/bin/sh\n"
        + "fred:x:1005:1005::/opt/root-owned:/bin/sh\n",
    )
    guest.plant("/usr/share/carol/file", uid=1002)
    guest.plant("/opt/root-owned/program")
    guest._at("/srv/homes").uid = 1003
    run(guest, "user-accounts", policy=Policy(keep_users=frozenset(["bob"])))
    assert "bob:x:1001" in text(guest, "/etc/passwd")
    assert "dave" not in text(guest, "/etc/passwd")
    kept = ("/usr/share/carol/file", "/opt/root-owned/program", "/srv/homes/bob/work")
    assert all(guest.stat(path) is not None for path in kept)


def test_a_line_ends_where_programs_see_its_end(guest: MemoryGuest) -> None:
    """Not at what Unicode takes for one, and a number has an end, too."""
    odd = "gina:x:1006:1006:Gina\u2028\x0cX:/home/gina:/bin/sh\n"
    kept = f"huge:x:{'9' * 5000}:1:\x85:/:/bin/sh\n"
    guest.plant("/etc/passwd", ACCOUNTS + odd + kept)
    guest.plant("/home/gina/file", uid=1006)
    run(guest, "user-accounts")
    assert "gina" not in text(guest, "/etc/passwd")
    assert guest.stat("/home/gina") is None
    assert text(guest, "/etc/passwd").endswith(kept)


def test_provisioned_users_are_those_of_the_agents(guest: MemoryGuest) -> None:
    guest.plant("/var/lib/waagent/ovf-env.xml", "<wa:X><ns1:UserName>alice</ns1:UserName></wa:X>")
    run(guest, "user-accounts", policy=Policy(Users.PROVISIONED))
    assert "alice" not in text(guest, "/etc/passwd")
    assert "bob" in text(guest, "/etc/passwd")


def test_shared_primary_group_outlives_its_namesake(guest: MemoryGuest) -> None:
    guest.plant("/etc/passwd", ACCOUNTS + "web:x:901:1000::/var/www:/bin/false\n")
    run(guest, "user-accounts")
    assert "alice:x:1000:\n" in text(guest, "/etc/group")


def test_no_password_is_left_and_none_is_empty(guest: MemoryGuest) -> None:
    guest.plant("/etc/passwd", ACCOUNTS.replace("svc:x:", "svc::"))
    changes = run(guest, "user-accounts", "passwords")
    fields = [line.split(":")[1] for line in text(guest, "/etc/shadow").splitlines()]
    assert set(fields) == {"*"}
    assert "svc:x:900" in text(guest, "/etc/passwd")
    assert (Action.LOCKED, "/etc/shadow:root") in changes


def test_kept_users_keep_their_password_but_not_an_empty_one(guest: MemoryGuest) -> None:
    guest.plant("/etc/shadow", SHADOW.replace("!$y$secret-bob", ""))
    run(guest, "passwords", policy=Policy(Users.NONE))
    shadow = text(guest, "/etc/shadow")
    assert "alice:$y$secret-alice:" in shadow
    assert "bob:*:" in shadow
    assert "root:*:" in shadow


def test_leases_of_all_clients_go_and_directories_stay(guest: MemoryGuest) -> None:
    leases = (
        "/var/lib/dhcp/dhclient.leases",
        "/var/lib/dhclient/dhclient-eth0.leases",
        "/var/lib/dhcpcd/eth0.lease",
        "/var/lib/NetworkManager/internal-1-eth0.lease",
        "/var/lib/NetworkManager/secret_key",
        "/var/lib/systemd/network/leases/2",
        "/var/lib/wicked/duid.xml",
        "/etc/dhcpcd.duid",
    )
    for path in leases:
        guest.plant(path, "lease")
    guest.plant("/var/lib/NetworkManager/NetworkManager.state", "kept")
    run(guest, "dhcp-leases")
    assert not [path for path in leases if guest.stat(path)]
    assert guest.names("/var/lib/NetworkManager") == ["NetworkManager.state"]
    assert guest.stat("/var/lib/dhcp") is not None


def test_a_servers_leases_are_emptied_in_place(guest: MemoryGuest) -> None:
    guest.plant("/var/lib/dhcpd/dhcpd.leases", "lease")
    assert run(guest, "dhcp-leases") == [(Action.TRUNCATED, "/var/lib/dhcpd/dhcpd.leases")]


def test_snapshots_are_reported_by_their_paths(guest: MemoryGuest) -> None:
    guest.kept_snapshots = ["@/.snapshots/2/snapshot"]
    assert run(guest, "snapshots") == [(Action.REMOVED, "@/.snapshots/2/snapshot")]


def test_card_bound_network_files_give_way_to_dhcp(guest: MemoryGuest) -> None:
    guest.plant("/etc/systemd/network/10-eth0.network", "[Match]\nMACAddress=00:15:5d:0a:1b:2c\n")
    guest.plant("/etc/systemd/network/20-static.network", "[Match]\nName=eth1\n")
    guest.plant("/etc/netplan/50-cloud-init.yaml", "match: {macaddress: '00:15:5D:0A:1B:2C'}")
    guest.plant("/etc/udev/rules.d/70-persistent-net.rules", "x")
    guest.plant("/etc/network/interfaces", "iface eth0 inet dhcp\n  hwaddress 00:15:5d:0a:1b:2c\n")
    guest.plant(
        "/etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\nHWADDR=00:15:5d:0a:1b:2c\n"
    )
    run(guest, "network-state")
    assert guest.names("/etc/systemd/network") == ["20-static.network", "80-galleria-dhcp.network"]
    assert guest.names("/etc/netplan") == ["80-galleria-dhcp.yaml"]
    assert guest.names("/etc/udev/rules.d") == []
    assert text(guest, "/etc/network/interfaces") == "iface eth0 inet dhcp\n"
    assert text(guest, "/etc/sysconfig/network-scripts/ifcfg-eth0") == "DEVICE=eth0\n"


def test_cloud_init_writes_the_new_network_files_itself(guest: MemoryGuest) -> None:
    guest.plant("/usr/bin/cloud-init")
    guest.plant("/etc/systemd/network/10-eth0.network", "MACAddress=00:15:5d:0a:1b:2c\n")
    run(guest, "network-state")
    assert guest.names("/etc/systemd/network") == []


def test_a_long_file_keeps_its_end(guest: MemoryGuest) -> None:
    """/etc/hosts may be a list of a hundred thousand hosts that are not to be reached."""
    blocked = "".join(f"0.0.0.0 ads{number}.example\n" for number in range(100_000))
    guest.plant("/etc/hosts", f"127.0.1.1 oldbox\n{blocked}")
    run(guest, "hostname")
    assert guest.read("/etc/hosts", 1 << 24).decode() == blocked
    guest.plant("/etc/hosts", "127.0.1.1 oldbox\n" + "#" * (65 << 20))
    with pytest.raises(Refused, match="too many to be edited"):
        run(guest, "hostname")


def test_a_hostile_hostname_takes_no_time(guest: MemoryGuest) -> None:
    guest.plant("/srv/name", "\n" * (1 << 19) + "!")
    guest.symlink("/srv/name", "/etc/mailname")
    run(guest, "hostname")
    assert text(guest, "/etc/mailname") == "localhost\n"


def test_hostname_goes_from_hosts_and_mailname_too(guest: MemoryGuest) -> None:
    guest.plant("/etc/hostname", "oldbox.corp.example\n")
    guest.plant(
        "/etc/hosts",
        "127.0.0.1 localhost\n127.0.1.1 oldbox.corp.example oldbox\n10.0.0.9 db oldbox # both\n",
    )
    guest.plant("/etc/mailname", "oldbox.corp.example\n")
    run(guest, "hostname")
    assert text(guest, "/etc/hostname") == "localhost\n"
    assert text(guest, "/etc/hosts") == "127.0.0.1 localhost\n10.0.0.9 db # both\n"
    assert text(guest, "/etc/mailname") == "localhost\n"


def test_resolver_link_stays_and_file_is_emptied(guest: MemoryGuest) -> None:
    guest.symlink("/run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf")
    assert run(guest, "resolver") == []
    guest.remove("/etc/resolv.conf")
    guest.plant("/etc/resolv.conf", "nameserver 10.0.0.1\n")
    assert run(guest, "resolver") == [(Action.TRUNCATED, "/etc/resolv.conf")]


def test_agents_state_goes(guest: MemoryGuest) -> None:
    guest.plant("/var/lib/cloud/instances/i-1/user-data.txt", "secret")
    guest.plant("/var/lib/cloud/seed/nocloud/user-data", "secret")
    guest.plant("/etc/cloud/cloud.cfg.d/subiquity-disable-cloudinit-networking.cfg", "x")
    guest.plant("/etc/cloud/cloud.cfg.d/05_logging.cfg", "x")
    guest.plant("/var/lib/waagent/Certificates.pem", "secret")
    guest.plant("/var/log/azure/ext/extension.log", "secret")
    run(guest, "cloud-init", "waagent")
    empty = ("/var/lib/cloud", "/var/lib/waagent", "/var/log/azure")
    assert all(guest.stat(path) is not None and guest.names(path) == [] for path in empty)
    assert guest.names("/etc/cloud/cloud.cfg.d") == ["05_logging.cfg"]


def test_logs_are_emptied_in_place_and_rotated_ones_removed(guest: MemoryGuest) -> None:
    guest.plant("/var/log/syslog", "secret", mode=0o640, uid=104)
    guest.plant("/var/log/app/deep/server.log", "secret", uid=33)
    for name in ("syslog.1", "syslog.2.gz", "cron-20260101", "dpkg.log.old"):
        guest.plant(f"/var/log/{name}", "secret")
    guest.plant("/var/log/journal/0123/system.journal", "secret")
    run(guest, "logs")
    assert guest.names("/var/log") == ["app", "journal", "syslog"]
    assert guest.names("/var/log/journal") == []
    found = guest.stat("/var/log/syslog")
    assert found is not None
    assert (found.length, found.mode, found.uid) == (0, 0o640, 104)
    assert text(guest, "/var/log/app/deep/server.log") == ""


def test_log_directory_that_is_a_link_is_treated_where_it_is(guest: MemoryGuest) -> None:
    guest.plant("/data/log/syslog", "secret")
    guest.plant_directory("/var")
    guest.symlink("/data/log", "/var/log")
    assert run(guest, "logs") == [(Action.TRUNCATED, "/data/log/syslog")]


@pytest.mark.parametrize(
    ("operation", "path"),
    [
        ("random-seed", "/var/lib/systemd/random-seed"),
        ("random-seed", "/var/lib/systemd/credential.secret"),
        ("password-backups", "/etc/shadow-"),
        ("password-backups", "/var/backups/shadow.bak"),
        ("temporary-files", "/tmp/a/b"),  # noqa: S108 - in the guest
        ("temporary-files", "/var/tmp/a"),  # noqa: S108 - in the guest
        ("crash-data", "/var/crash/core"),
        ("crash-data", "/var/lib/systemd/coredump/core.x"),
        ("package-caches", "/var/cache/apt/archives/x.deb"),
        ("spools", "/var/mail/root"),
        ("spools", "/var/spool/cron/atjobs/a1"),
        ("crontabs", "/var/spool/cron/crontabs/root"),
        ("boot-flags", "/forcefsck"),
        ("boot-flags", "/.autorelabel"),
        ("storage-names", "/etc/nvme/hostnqn"),
        ("storage-names", "/etc/iscsi/initiatorname.iscsi"),
        ("storage-names", "/etc/lvm/devices/system.devices"),
        ("domain", "/etc/krb5.keytab"),
        ("subscriptions", "/etc/pki/consumer/key.pem"),
        ("agents", "/etc/salt/minion_id"),
    ],
)
def test_what_each_leftover_operation_removes(
    guest: MemoryGuest, operation: str, path: str
) -> None:
    guest.plant(path, "secret")
    assert any(action is Action.REMOVED for action, _ in run(guest, operation))
    assert guest.stat(path) is None


def test_debian_makes_a_new_initiator_name(guest: MemoryGuest) -> None:
    guest.plant("/var/lib/dpkg/status")
    guest.plant("/etc/iscsi/initiatorname.iscsi", "InitiatorName=iqn.1993-08.org.debian:01:abc\n")
    run(guest, "storage-names")
    assert text(guest, "/etc/iscsi/initiatorname.iscsi") == "GenerateName=yes\n"


def test_snakeoil_goes_only_where_a_new_one_can_be_made(guest: MemoryGuest) -> None:
    key = "/etc/ssl/private/ssl-cert-snakeoil.key"
    guest.plant(key, "secret")
    assert run(guest, "snakeoil") == []
    guest.plant("/usr/sbin/make-ssl-cert")
    run(guest, "snakeoil")
    assert guest.stat(key) is None
    wanted = "/etc/systemd/system/multi-user.target.wants/galleria-snakeoil.service"
    unit = text(guest, guest.readlink(wanted))
    assert f"ConditionPathExists=!{key}" in unit


def test_profiles_choose_and_names_are_checked() -> None:
    assert [op.name for op in select("none").operations] == []
    everything = [op.name for op in select().operations]
    assert everything == [op.name for op in OPERATIONS if op.default]
    assert "logs" not in [op.name for op in select(skip=["logs"]).operations]
    assert "crontabs" in [op.name for op in select(enable=["crontabs"]).operations]
    assert "user-accounts" not in [op.name for op in select("deprovision").operations]
    with pytest.raises(InvalidParameter) as caught:
        select(skip=["log"])
    assert "did you mean logs?" in caught.value.message
    with pytest.raises(InvalidParameter) as caught:
        select("sysperp")
    assert all(profile.name in caught.value.hint for profile in PROFILES)


def test_operation_names_are_unique_and_profiles_name_only_those() -> None:
    names = [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)
    assert all(set(profile.operations) <= set(names) for profile in PROFILES)


def test_stage_reports_every_change_and_free_space(guest: MemoryGuest) -> None:
    guest.plant("/etc/machine-id", "0123")
    guest.plant("/tmp/evil\n\x1b[31m", "x")  # noqa: S108 - in the guest
    host = MemoryHost(guest, free=[[Range(4096, 512)]])
    done = generalize(host, [()], select(), Quiet())
    assert done.free == ((Range(4096, 512),),)
    assert done.seen.facts.hostname == "oldbox"
    by_name = {entry["name"]: entry for entry in done.report["operations"]}
    assert by_name["machine-id"] == {
        "name": "machine-id",
        "result": "changed",
        "changes": [{"action": "truncated", "path": "/etc/machine-id"}],
    }
    assert by_name["boot-flags"]["result"] == "nothing to do"
    assert by_name["temporary-files"]["changes"] == [
        {"action": "removed", "path": "/tmp/evil\\n\\x1b[31m"}  # noqa: S108 - in the guest
    ]
    assert looks_generalized(guest).verdict == "generalized"


def test_failed_operation_fails_the_stage_by_name(guest: MemoryGuest) -> None:
    def fail(edit: Editor, context: Context) -> None:
        raise StageFailed("no room")

    plan = Plan("mine", (Operation("doomed", "h", "w", fail),), Policy())
    with pytest.raises(StageFailed, match="doomed: no room"):
        generalize(MemoryHost(guest), [()], plan, Quiet())


def test_windows_is_refused_with_what_to_do(guest: MemoryGuest) -> None:
    host = MemoryHost(guest, GuestFacts(os_type="windows", product_name="Windows Server 2022"))
    with pytest.raises(Refused, match="not generalized but unknown") as caught:
        generalize(host, [()], select(), Quiet())
    assert "sysprep" in caught.value.hint


def test_check_tells_specialized_from_unknown(guest: MemoryGuest) -> None:
    found = looks_generalized(guest)
    assert found.verdict == "unknown"
    assert "the user 'alice' exists" in found.reasons
    guest.plant("/etc/ssh/ssh_host_rsa_key", "k")
    guest.plant("/etc/machine-id", "uninitialized\n")
    found = looks_generalized(guest)
    assert found.verdict == "specialized"
    assert found.reasons[0] == "1 ssh host keys in /etc/ssh"


def test_new_files_get_the_labels_that_the_guest_says(guest: MemoryGuest) -> None:
    unit = "/etc/systemd/system/ssh.service.d"
    guest.plant("/usr/sbin/sshd")
    guest.plant("/usr/bin/ssh-keygen")
    guest.plant("/usr/lib/systemd/system/ssh.service", "[Service]\n")
    guest.plant_directory("/etc/systemd/system")
    guest.set_label("/etc/systemd/system", "system_u:object_r:systemd_unit_file_t:s0")
    guest.plant("/etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=strict\n")
    guest.plant(
        "/etc/selinux/strict/contexts/files/file_contexts",
        "/.*\tsystem_u:object_r:default_t:s0\n"
        "/etc/systemd/system(/.*)?\tsystem_u:object_r:unit_t:s0\n"
        "/etc/systemd/system/[^/]+\\.d/.*\\.conf\t--\tsystem_u:object_r:drop_in_t:s0\n"
        "/etc/systemd/(\t--\tsystem_u:object_r:broken_t:s0\n",
    )
    run(guest, "ssh-host-keys")
    assert guest.label(unit) == "system_u:object_r:unit_t:s0"
    assert guest.label(f"{unit}/50-galleria-host-keys.conf") == "system_u:object_r:drop_in_t:s0"


@pytest.mark.parametrize(
    "pattern", ["(.*)*x", "([^/]+)+x", "(.*/)*x", ".*.*.*.*.*.*.*.*x", "(a|m)*{9}"]
)
def test_hostile_lists_of_labels_take_no_time(guest: MemoryGuest, pattern: str) -> None:
    guest.plant_directory("/etc")
    guest.set_label("/etc", "etc_t")
    name = "/etc/selinux/targeted/contexts/files/file_contexts"
    guest.plant(name, f"/etc/{pattern} hostile_t\n/etc/.* any_t\n")
    guest.plant("/usr/lib/systemd/systemd")
    labels = Labels(guest)
    made = f"/etc/{'a-long-name-' * 12}"
    guest.plant(made)
    labels.give(made)
    assert guest.label(made) == "any_t"


def test_without_a_list_a_new_file_is_labelled_as_its_directory(guest: MemoryGuest) -> None:
    guest.plant_directory("/etc")
    guest.set_label("/etc", "etc_t")
    run(guest, "machine-id")
    assert guest.label("/etc/machine-id") == "etc_t"


def test_system_v_gets_a_script_that_makes_host_keys(guest: MemoryGuest) -> None:
    guest.plant("/usr/sbin/sshd")
    guest.plant("/usr/bin/ssh-keygen")
    guest.plant("/etc/init.d/ssh", "#!/bin/sh\nsshd\n")
    guest.plant("/etc/rc2.d/S02ssh", "")
    guest.plant("/etc/ssh/ssh_host_rsa_key", "k")
    order = "TARGETS = rsyslog dbus ssh\nINTERACTIVE =\ndbus: rsyslog\nssh: rsyslog\n"
    guest.plant("/etc/init.d/.depend.start", order)
    run(guest, "ssh-host-keys")
    run(guest, "ssh-host-keys")
    assert text(guest, "/etc/init.d/.depend.start") == (
        "TARGETS = galleria-host-keys rsyslog dbus ssh\nINTERACTIVE =\n"
        "dbus: rsyslog\nssh: galleria-host-keys rsyslog\n"
    )
    assert guest.names("/etc/ssh") == []
    assert guest.readlink("/etc/rc2.d/S00galleria-host-keys") == "../init.d/galleria-host-keys"
    found = guest.stat("/etc/init.d/galleria-host-keys")
    assert found is not None
    assert found.mode == 0o755
    assert "ssh-keygen -A" in text(guest, "/etc/init.d/galleria-host-keys")


@pytest.mark.parametrize("init", ["sysvinit", "../lib/systemd/systemd"])
def test_units_guarantee_keys_only_where_systemd_starts_them(guest: MemoryGuest, init: str) -> None:
    """Debian's openssh-server and dropbear bring their units to a guest of System V, too."""
    guest.plant("/usr/lib/systemd/systemd", "ELF")
    guest.plant("/lib/systemd/systemd", "ELF")
    guest.plant("/sbin/sysvinit", "ELF")
    guest.symlink(init, "/sbin/init")
    guest.plant("/usr/sbin/sshd")
    guest.plant("/usr/bin/ssh-keygen")
    guest.plant("/usr/lib/systemd/system/ssh.service", "[Service]\nExecStartPre=sshd -t\n")
    guest.plant("/etc/init.d/ssh", "#!/bin/sh\nsshd\n")
    guest.plant("/etc/rc2.d/S02ssh", "")
    guest.plant("/etc/ssh/sshd_config", "HostKey /etc/ssh/keys/machine\n")
    guest.plant("/etc/ssh/keys/machine", "k")
    for _ in range(2):
        run(guest, "ssh-host-keys")
        by_script = "galleria-host-keys" in guest.names("/etc/init.d")
        assert by_script == (init == "sysvinit")
        assert not by_script or "-f /etc/ssh/keys/machine" in text(
            guest, "/etc/init.d/galleria-host-keys"
        )
        assert guest.names("/etc/ssh/keys") == []
    guest.plant("/usr/sbin/dropbear")
    guest.plant("/etc/dropbear/dropbear_rsa_host_key", "k")
    guest.plant("/usr/lib/systemd/system/dropbear.service", "[Service]\nExecStart=dropbear\n")
    if init == "sysvinit":
        with pytest.raises(StageFailed, match="nothing that would make new host keys"):
            run(guest, "ssh-host-keys")
    else:
        run(guest, "ssh-host-keys")
        assert guest.names("/etc/dropbear") == []


def test_swap_files_keep_their_header_and_length(guest: MemoryGuest) -> None:
    header = bytes(4086) + b"SWAPSPACE2"
    guest.plant("/etc/fstab", "/data/swap none swap sw 0 0\n")
    for path in ("/data/swap", "/swap.img"):
        guest.plant(path, header + b"secret" * 1000)
    guest.plant("/swapfile", b"no swap at all")
    done = generalize(MemoryHost(guest), [()], select(only=["swap-files"]), Quiet())
    assert done.report["operations"][0]["changes"] == [
        {"action": "emptied", "path": "/data/swap"},
        {"action": "emptied", "path": "/swap.img"},
    ]
    assert guest.read("/data/swap") == header + bytes(6000)
    assert text(guest, "/swapfile") == "no swap at all"


def test_hibernated_swap_file_is_refused(guest: MemoryGuest) -> None:
    guest.plant("/swapfile", bytes(4086) + b"S1SUSPEND\0" + b"x")
    with pytest.raises(StageFailed, match="hibernated"):
        run(guest, "swap-files")


def test_own_paths_and_scripts(guest: MemoryGuest) -> None:
    guest.plant("/opt/app/token", "secret")
    guest.plant("/opt/app/state", "secret")
    plan = select(
        "none",
        remove_paths=["/opt/*/token"],
        truncate_paths=["/opt/app/state"],
        scripts=[Script("reset.sh", "echo reset")],
    )
    done = generalize(MemoryHost(guest), [()], plan, Quiet())
    assert guest.names("/opt/app") == ["state"]
    assert text(guest, "/opt/app/state") == ""
    assert guest.scripts == ["echo reset"]
    assert [entry["result"] for entry in done.report["operations"]] == ["changed", "changed"]


@pytest.mark.parametrize("path", ["relative", "/", "/*", "/a/../b"])
def test_own_paths_are_checked(path: str) -> None:
    with pytest.raises(InvalidParameter):
        select(remove_paths=[path])


@pytest.mark.parametrize(
    ("distribution", "family"),
    [
        *(("debian", "debian"), ("ubuntu", "debian"), ("rocky", "redhat"), ("sles", "suse")),
        *(("archlinux", "arch"), ("alpinelinux", "alpine")),
    ],
)
def test_families(distribution: str, family: str) -> None:
    facts = GuestFacts(os_type="linux", distribution=distribution)
    assert families_of(facts) == {"linux", family}


def test_operations_of_another_family_do_not_apply(guest: MemoryGuest) -> None:
    guest.plant("/var/lib/rpm/__db.001")
    for distribution, kept in (("debian", True), ("fedora", False)):
        host = MemoryHost(guest, GuestFacts(os_type="linux", distribution=distribution))
        done = generalize(host, [()], select(only=["rpm-locks"]), Quiet())
        assert done.report["operations"][0]["result"] == ("not applicable" if kept else "changed")
        assert (guest.stat("/var/lib/rpm/__db.001") is not None) is kept


def test_every_operation_says_where_it_looks() -> None:
    for operation in OPERATIONS:
        assert operation.why
        assert operation.families
        if operation.families != ("windows",) and operation.name not in ("extra-paths", "scripts"):
            assert operation.paths, operation.name


def test_wifi_profiles_with_passwords_go(guest: MemoryGuest) -> None:
    directory = "/etc/NetworkManager/system-connections"
    guest.plant(f"{directory}/cafe.nmconnection", "[wifi-security]\npsk=secret\n")
    guest.plant(f"{directory}/lan.nmconnection", "[connection]\nid=lan\n[ipv4]\nmethod=auto\n")
    run(guest, "network-state")
    assert guest.names(directory) == ["lan.nmconnection"]


def test_every_operation_has_tests() -> None:
    """Of its own, or on guests; the table of them (python -m tests.table) has all."""
    units = table.unit_tests()
    names = {operation.name for operation in table.LINUX}
    assert {name for name in names if not table.shown(name)} == set(table.ELSEWHERE)
    assert set(table.ONLY) | set(table.ELSEWHERE) | set(units) <= names
    rows = table.rows()[2:]
    assert [row[0].strip("`") for row in rows] == [operation.name for operation in table.LINUX]
    assert all("yes" in row or row[-1] for row in rows)


def test_thousands_of_accounts_take_seconds(guest: MemoryGuest) -> None:
    """It was their number to the third power: minutes for two thousand."""
    names = [f"u{number}" for number in range(2000)]
    lines = [f"{name}:x:{5000 + n}:{5000 + n}::/h/{name}:/bin/sh" for n, name in enumerate(names)]
    guest.plant("/etc/passwd", ACCOUNTS + "\n".join(lines) + "\n")
    guest.plant("/etc/sudoers", "".join(f"{name} ALL=(ALL) ALL\n" for name in names))
    for number, name in enumerate(names[:20]):
        guest.plant_directory(f"/h/{name}", uid=5000 + number)
        guest.plant(f"/var/mail/{name}", "mail", uid=5000 + number)
    began = time.process_time()
    run(guest, "user-accounts", policy=Policy(Users.ALL, keep_users=frozenset(["alice"])))
    assert time.process_time() - began < 10
    assert "u1999" not in text(guest, "/etc/passwd")
    assert guest.names("/h") == guest.names("/var/mail") == []
    assert text(guest, "/etc/sudoers") == ""


def test_a_mistake_in_an_operation_is_a_failed_job(guest: MemoryGuest) -> None:
    def deep(edit: Editor, context: Context) -> None:
        deep(edit, context)

    plan = Plan("mine", (Operation("doomed", "h", "w", deep),), Policy())
    with pytest.raises(StageFailed, match="failed in doomed: RecursionError"):
        generalize(MemoryHost(guest), [()], plan, Quiet())
