"""Identities wherever they lie: homes by content, accounts of services, networks that nothing would
write again, host keys elsewhere, agents' state, secrets in cloud-init's configuration."""

import pytest

from pipeline.errors import InvalidParameter, StageFailed
from pipeline.guest import units
from pipeline.guest.agents import AGENTS, Agent, parse_agents
from pipeline.guest.operations import Action, Context, Editor, Policy, Users
from pipeline.guest.profiles import OPERATIONS, select
from pipeline.ports import GuestFacts
from tests.contract.memory_guest import MemoryGuest
from tests.unit.test_generalize import guest as guest
from tests.unit.test_generalize import run, text

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\n"
WANTS = "/etc/systemd/system/multi-user.target.wants"


def enable(guest: MemoryGuest, unit: str, content: str) -> None:
    guest.plant(f"/usr/lib/systemd/system/{unit}", content)
    guest.plant_directory(WANTS)
    guest.symlink(f"/usr/lib/systemd/system/{unit}", f"{WANTS}/{unit}")


# --- homes and accounts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "home",
    [
        *("/home/corp.example/ann", "/home/local/CORP/bo", "/export/home/cy", "/srv/people/dee"),
        *("/var/home/eve", "/data/fay"),
    ],
)
def test_a_home_that_no_account_names_is_found_by_what_is_in_it(
    guest: MemoryGuest, home: str
) -> None:
    guest.plant(f"{home}/.ssh/id_rsa", KEY, uid=1364400500)
    guest.plant(f"{home}/.bash_history", "kinit secret")
    guest.plant(f"{home}/work", "kept")
    guest.plant("/srv/www/.cache", "no home")
    run(guest, "shell-history", "ssh-user-keys", "user-credentials")
    assert (guest.names(home), guest.names(f"{home}/.ssh")) == ([".ssh", "work"], [])
    assert guest.names("/srv/www") == [".cache"]


def test_the_account_of_an_enabled_service_stays_without_its_password(guest: MemoryGuest) -> None:
    enable(guest, "app.service", "[Service]\nUser=alice\nExecStart=/opt/app\n")
    guest.plant("/usr/lib/systemd/system/idle.service", "[Service]\nUser=bob\n")
    run(guest, "user-accounts", "passwords")
    assert "alice:" in text(guest, "/etc/passwd")
    assert "bob:" not in text(guest, "/etc/passwd")
    assert "secret-alice" not in text(guest, "/etc/shadow")
    assert guest.read("/home/alice/work") == b"kept"
    run(guest, "user-accounts", policy=Policy(Users.ALL, remove_users=frozenset(["alice"])))
    assert "alice:" not in text(guest, "/etc/passwd")


def test_units_are_found_through_timers_templates_and_drop_ins(guest: MemoryGuest) -> None:
    enable(guest, "backup.timer", "[Timer]\nOnCalendar=daily\n")
    guest.plant("/usr/lib/systemd/system/backup.service", "[Service]\nUser=root\n")
    guest.plant("/etc/systemd/system/backup.service.d/user.conf", "[Service]\nUser=keeper\n")
    guest.plant("/usr/lib/systemd/system/sync@.service", "[Service]\nUser=%i\n")
    guest.symlink("/usr/lib/systemd/system/sync@.service", f"{WANTS}/sync@zoe.service")
    look = Editor(guest, "t")
    assert units.users(look) == {
        "root": "backup.service",
        "keeper": "backup.service",
        "zoe": "sync@zoe.service",
    }


# --- the network ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "writes"),
    [
        ({}, True),
        ({"/etc/cloud/cloud-init.disabled": ""}, False),
        ({"/etc/cloud/cloud.cfg.d/x.cfg": "network: {config: disabled}\n"}, False),
        ({"/etc/cloud/cloud.cfg.d/99-any.cfg": "network:\n  # no\n  config: 'disabled'\n"}, False),
        ({"/etc/cloud/cloud.cfg.d/y.cfg": "network:\n  version: 2\n"}, True),
        ({"/etc/default/grub": 'GRUB_CMDLINE_LINUX="cloud-init=disabled"\n'}, False),
    ],
)
def test_network_files_go_only_where_something_writes_them_again(
    guest: MemoryGuest, extra: dict[str, str], *, writes: bool
) -> None:
    guest.plant("/usr/bin/cloud-init")
    for path, content in extra.items():
        guest.plant(path, content)
    guest.plant("/etc/netplan/50-cloud-init.yaml", "network: {ethernets: {enp1s0: {dhcp4: yes}}}\n")
    guest.plant("/etc/network/interfaces.d/50-cloud-init", "iface eth0 inet static\n")
    run(guest, "cloud-init")
    assert guest.names("/etc/netplan") == ([] if writes else ["80-galleria-dhcp.yaml"])
    assert guest.names("/etc/network/interfaces.d") == ([] if writes else ["80-galleria-dhcp"])


def test_without_cloud_init_its_network_file_gives_way_to_dhcp(guest: MemoryGuest) -> None:
    guest.plant("/etc/netplan/50-cloud-init.yaml", "network: {}\n")
    run(guest, "network-state", "cloud-init")
    assert guest.names("/etc/netplan") == ["80-galleria-dhcp.yaml"]
    assert "dhcp4: true" in text(guest, "/etc/netplan/80-galleria-dhcp.yaml")


def test_network_manager_gets_a_profile_where_it_makes_none(guest: MemoryGuest) -> None:
    directory = "/etc/NetworkManager/system-connections"
    for expected in ([], ["80-galleria-dhcp.nmconnection"]):
        guest.plant(f"{directory}/eth0.nmconnection", "mac-address=00:15:5d:0a:1b:2c\n")
        run(guest, "network-state")
        assert guest.names(directory) == expected
        guest.plant("/usr/lib/NetworkManager/conf.d/00-server.conf", "[main]\nno-auto-default=*\n")


@pytest.mark.parametrize(
    ("enabled", "files", "after"),
    [
        ("systemd-networkd.service", {}, "kept"),
        ("systemd-networkd.service", {"/usr/sbin/dhclient": ""}, "kept"),
        ("systemd-networkd.service", {"/usr/sbin/NetworkManager": ""}, "emptied"),
        ("systemd-resolved.service", {"/etc/netplan/a.yaml": "network: {}"}, "linked"),
        ("cron.service", {"/etc/network/interfaces": "iface e inet static\n"}, "kept"),
        (
            "networking.service",
            {"/etc/network/interfaces": "iface e inet dhcp\n", "/usr/sbin/dhclient": ""},
            "emptied",
        ),
    ],
)
def test_name_servers_stay_where_nothing_would_write_others(
    guest: MemoryGuest, enabled: str, files: dict[str, str], after: str
) -> None:
    enable(guest, enabled, "[Service]\n")
    for path, content in files.items():
        guest.plant(path, content)
    guest.plant("/etc/resolv.conf", "nameserver 9.9.9.9\n")
    changes = run(guest, "resolver")
    found = guest.stat("/etc/resolv.conf")
    assert found is not None
    if after == "linked":
        assert guest.readlink("/etc/resolv.conf") == "/run/systemd/resolve/stub-resolv.conf"
    else:
        assert guest.read("/etc/resolv.conf") == (
            b"" if after == "emptied" else b"nameserver 9.9.9.9\n"
        )
    assert bool(changes) == (after != "kept")


def test_a_generic_host_name_stays(guest: MemoryGuest) -> None:
    guest.plant("/etc/hostname", "localhost.localdomain\n")
    guest.plant("/etc/hosts", "127.0.0.1 localhost.localdomain localhost\n")
    assert run(guest, "hostname", hostname="localhost.localdomain") == []


# --- host keys -----------------------------------------------------------------------------------


def sshd(guest: MemoryGuest) -> None:
    for path in ("/usr/sbin/sshd", "/usr/bin/ssh-keygen"):
        guest.plant(path)
    unit = "[Service]\nExecStartPre=/usr/sbin/sshd -t\n"
    guest.plant("/usr/lib/systemd/system/ssh.service", unit)


def test_host_keys_behind_links_and_those_that_sshd_config_names_go(guest: MemoryGuest) -> None:
    sshd(guest)
    guest.plant("/mnt/persist/rsa", KEY)
    guest.plant_directory("/etc/ssh")
    guest.symlink("/mnt/persist/rsa", "/etc/ssh/ssh_host_rsa_key")
    guest.symlink("/etc/passwd", "/etc/ssh/ssh_host_dsa_key")
    guest.plant("/var/lib/ssh/host_ecdsa", KEY)
    guest.plant("/var/lib/ssh/host_ecdsa.pub", "ssh-x")
    guest.plant("/etc/ssh/sshd_config", "HostKey /etc/ssh/ssh_host_rsa_key\nPort 22\n")
    guest.plant("/etc/ssh/sshd_config.d/k.conf", "hostkey=/var/lib/ssh/host_ecdsa\nHostKey none\n")
    run(guest, "ssh-host-keys")
    assert guest.names("/mnt/persist") == guest.names("/var/lib/ssh") == []
    assert "root" in text(guest, "/etc/passwd")
    drop_in = text(guest, "/etc/systemd/system/ssh.service.d/50-galleria-host-keys.conf")
    lines = [line for line in drop_in.splitlines() if line.startswith("ExecStartPre=")]
    assert lines[0] == "ExecStartPre="
    assert lines[1] == "ExecStartPre=/usr/bin/ssh-keygen -A"
    assert "ssh-keygen -q -t ecdsa" in lines[2]
    assert "-f /var/lib/ssh/host_ecdsa;" in lines[2]
    assert lines[3] == "ExecStartPre=/usr/sbin/sshd -t"


@pytest.mark.parametrize("path", ["/srv/;reboot", "/srv/$(reboot)", "/srv/'x"])
def test_a_key_with_a_hostile_name_is_refused(guest: MemoryGuest, path: str) -> None:
    sshd(guest)
    guest.plant(path, KEY)
    guest.plant("/etc/ssh/sshd_config", f"HostKey {path}\n")
    with pytest.raises(StageFailed, match="safely"):
        run(guest, "ssh-host-keys")


def test_keys_of_its_own_and_nothing_that_makes_them_is_refused(guest: MemoryGuest) -> None:
    guest.plant("/usr/sbin/sshd")
    guest.plant("/usr/bin/ssh-keygen")
    guest.plant("/etc/init.d/sshd", "ssh-keygen -A\n")
    guest.plant("/srv/key", KEY)
    guest.plant("/etc/ssh/sshd_config", "HostKey /srv/key\n")
    with pytest.raises(StageFailed, match="nothing would make again"):
        run(guest, "ssh-host-keys")
    assert guest.read("/srv/key") == KEY.encode()


# --- agents --------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.name)
def test_the_state_of_every_agent_goes(guest: MemoryGuest, agent: Agent) -> None:
    planted = [path.replace("/**", "/deep/id").replace("*", "x") for path in agent.paths]
    for path in planted:
        guest.plant(path, "id")
    guest.plant("/opt/other/file", "kept")
    run(guest, "agents")
    assert [path for path in planted if guest.stat(path) is not None] == []
    assert guest.read("/opt/other/file") == b"kept"


def test_popularity_contest_loses_its_id_and_keeps_its_settings(guest: MemoryGuest) -> None:
    guest.plant("/etc/popularity-contest.conf", 'MY_HOSTID="2d4d"\nPARTICIPATE="yes"\n')
    run(guest, "agents")
    assert text(guest, "/etc/popularity-contest.conf") == 'PARTICIPATE="yes"\n'


def test_a_users_file_names_more_agents(guest: MemoryGuest) -> None:
    rows = parse_agents('[[agent]]\nname = "ACME"\npaths = ["/var/lib/acme/id", "/etc/acme/**"]\n')
    guest.plant("/var/lib/acme/id", "x")
    guest.plant("/etc/acme/keys/one", "x")
    plan = select(agents=rows)
    operation = next(item for item in plan.operations if item.name == "agents")
    edit = Editor(guest, "agents")
    operation.perform(edit, Context(GuestFacts("linux"), plan.policy))
    assert [change.path for change in edit.changes] == ["/var/lib/acme/id", "/etc/acme/keys/one"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "agent = 1\n",
        "[[agent]]\nname = 'x'\n",
        "[[agent]]\nname = 'x'\npaths = []\n",
        "[[agent]]\nname = 'x'\npaths = ['relative/id']\n",
        "[[agent]]\nname = 'x'\npaths = ['/etc/../etc/id']\n",
        "[[agent]]\nname = 'x'\npaths = ['/etc/**']\n",
        "[[agent]]\nname = 'x'\npaths = ['/*/*/*']\n",
        "[[agent]]\nname = 'x'\npaths = ['/etc/id']\nmore = 1\n",
        "#" * (65 << 10),
        "[[agent]\n",
    ],
)
def test_a_file_that_names_no_agents_is_refused(content: str) -> None:
    with pytest.raises(InvalidParameter):
        parse_agents(content)


# --- cloud-init, logins --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "kept"),
    [
        ("90_maas_cloud_config.cfg", "datasource: {MAAS: {token_key: x}}\n", False),
        ("any.cfg", "reporting: {maas: {consumer_key: s, token_secret: t}}\n", False),
        ("source.cfg", "datasource_list: [ MAAS ]\n", False),
        ("users.cfg", "users:\n- name: x\n  hashed_passwd: $6$x\n", False),
        (
            "net.cfg",
            "network:\n  ethernets: {e: {match: {macaddress: '52:54:00:aa:bb:cc'}}}\n",
            False,
        ),
        ("90_dpkg.cfg", "datasource_list: [ NoCloud, ConfigDrive, Azure, None ]\n", True),
        ("user.cfg", "system_info: {default_user: {name: u, lock_passwd: true}}\n", True),
        ("05_logging.cfg", "output: {all: '| tee -a /var/log/x'}\n", True),
    ],
)
def test_configuration_of_one_machine_goes_by_its_content(
    guest: MemoryGuest, name: str, content: str, *, kept: bool
) -> None:
    guest.plant(f"/etc/cloud/cloud.cfg.d/{name}", content)
    run(guest, "cloud-init")
    assert guest.names("/etc/cloud/cloud.cfg.d") == ([name] if kept else [])


def test_scripts_of_the_image_stay(guest: MemoryGuest) -> None:
    for path in ("scripts/per-boot/own", "scripts/vendor/x", "data/id", "instances/i/user-data"):
        guest.plant(f"/var/lib/cloud/{path}", "x")
    run(guest, "cloud-init")
    assert [path for path, _ in guest.find("/var/lib/cloud")] == [
        "/var/lib/cloud/scripts",
        "/var/lib/cloud/scripts/per-boot",
        "/var/lib/cloud/scripts/per-boot/own",
    ]


def test_databases_of_logins_go(guest: MemoryGuest) -> None:
    for path in ("/var/lib/lastlog/lastlog2.db", "/var/lib/wtmpdb/wtmp.db"):
        guest.plant(path, "SQLite")
    changes = run(guest, "logs")
    assert changes == [
        (Action.REMOVED, "/var/lib/lastlog/lastlog2.db"),
        (Action.REMOVED, "/var/lib/wtmpdb/wtmp.db"),
    ]


def test_ubuntu_pro_leaves_no_token(guest: MemoryGuest) -> None:
    for path in (
        "/etc/apt/auth.conf.d/90ubuntu-advantage",
        "/var/lib/ubuntu-advantage/private/machine-token.json",
        "/etc/apt/sources.list.d/ubuntu-esm-apps.list",
    ):
        guest.plant(path, "x")
    guest.plant("/etc/apt/auth.conf.d/mirror.conf", "kept")
    assert len(run(guest, "subscriptions")) == 3
    assert guest.names("/etc/apt/auth.conf.d") == ["mirror.conf"]


def test_var_that_is_found_by_the_machine_id_is_named_in_fstab(guest: MemoryGuest) -> None:
    guest.plant("/etc/machine-id", "0" * 32)
    guest.plant("/etc/fstab", "LABEL=root / ext4 defaults 0 1")
    facts = GuestFacts("linux", var_partition="1234-5678")
    operation = next(item for item in OPERATIONS if item.name == "machine-id")
    for _ in range(2):
        operation.perform(Editor(guest, "machine-id"), Context(facts))
    assert text(guest, "/etc/fstab") == (
        "LABEL=root / ext4 defaults 0 1\nPARTUUID=1234-5678 /var auto defaults 0 2\n"
    )
