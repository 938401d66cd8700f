"""The verdict is what the operations would change, of every file system of the disks."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from pipeline.errors import Refused
from pipeline.guest.checks import Evidence, evidence, looks_generalized
from pipeline.guest.elsewhere import place_of
from pipeline.guest.generalize import generalize
from pipeline.guest.operations import Action, Change, Context, Editor
from pipeline.guest.profiles import OPERATIONS, select
from pipeline.guest.scoped import ScopedGuest
from pipeline.guest.survey import Survey, check_os_state, survey
from pipeline.model import OsState
from pipeline.ports import GuestFacts, Images, Unmounted
from tests.contract.memory_guest import MemoryGuest, MemoryHost, Node
from tests.unit.test_generalize import Quiet
from tests.unit.test_generalize import guest as guest

FACTS = GuestFacts("linux", "debian", hostname="oldbox")


def tree(node: Node, path: str = "") -> dict[str, tuple[str, bytes, str]]:
    """Everything that a guest holds."""
    found = {path: (node.kind, node.content, node.target)}
    for name, child in node.children.items():
        found |= tree(child, f"{path}/{name}")
    return found


def clean() -> MemoryGuest:
    made = MemoryGuest()
    made.plant("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
    made.plant("/etc/shadow", "root:*:19000:0:99999:7:::\n")
    made.plant("/usr/lib/systemd/systemd", "ELF")
    made.plant("/etc/machine-id", "")
    return made


@pytest.mark.parametrize(
    ("path", "content", "verdict", "told"),
    [
        ("/etc/krb5.keytab", "k", "specialized", "domain would change /etc/krb5.keytab"),
        ("/etc/pki/consumer/key.pem", "k", "specialized", "subscriptions would change"),
        ("/etc/salt/pki/minion/minion.pem", "k", "specialized", "agents would change"),
        ("/var/lib/systemd/random-seed", "s", "specialized", "random-seed would change"),
        (
            "/etc/shadow",
            "root:$6$x:1::::::\n",
            "unknown",
            "passwords would change /etc/shadow:root",
        ),
        ("/root/.ssh/authorized_keys", "k", "unknown", "ssh-authorized-keys would change"),
        ("/var/log/auth.log", "l", "unknown", "logs would change /var/log/auth.log"),
        ("/var/cache/apt/archives/a.deb", "d", "generalized", "no machine id"),
    ],
)
def test_one_thing_left_is_told(path: str, content: str, verdict: str, told: str) -> None:
    guest = clean()
    assert looks_generalized(guest).verdict == "generalized"
    guest.plant(path, content)
    before = tree(guest.root)
    found = looks_generalized(guest)
    assert found.verdict == verdict
    assert any(reason.startswith(told) for reason in found.reasons), found.reasons
    assert tree(guest.root) == before


def test_a_dry_run_of_everything_changes_nothing_and_says_what_a_real_one_does(
    guest: MemoryGuest,
) -> None:
    for path in ("/etc/machine-id", "/etc/ssh/ssh_host_rsa_key", "/etc/passwd-", "/var/log/a"):
        guest.plant(path, "0123")
    guest.plant("/etc/hostname", "oldbox\n")
    before = tree(guest.root)
    dry: dict[str, list[Change]] = {}
    real: dict[str, list[Change]] = {}
    scoped = ScopedGuest(guest)

    plan = select(enable=[op.name for op in OPERATIONS])
    for target, kept in ((scoped, dry), (guest, real)):
        for operation in plan.operations:
            if "linux" in operation.families:
                edit = Editor(target, operation.name)
                operation.perform(edit, Context(FACTS, plan.policy))
                kept[operation.name] = edit.changes
        if target is scoped:
            assert tree(guest.root) == before
    assert dry == real
    assert tree(guest.root) != before


def stray_home() -> MemoryGuest:
    made = MemoryGuest()
    made.plant("/alice/.ssh/id_rsa", "key", uid=1000)
    made.plant("/alice/.bash_history", "typed", uid=1000)
    made.plant("/alice/work", "kept", uid=1000)
    return made


def others(**found: str) -> tuple[Unmounted, ...]:
    return tuple(Unmounted(f"/dev/{name}", "ext4", problem) for name, problem in found.items())


def test_what_is_mounted_nowhere_is_cleaned_by_its_content(guest: MemoryGuest) -> None:
    home = stray_home()
    host = MemoryHost(guest, FACTS, left=others(sdb1=""), others={"/dev/sdb1": home})
    done = generalize(host, [()], select(), Quiet())
    assert [name for name in tree(home.root) if "." in name or "work" in name] == [
        "/alice/.ssh",
        "/alice/work",
    ]
    assert done.report["check"]["verdict"] == "generalized"
    assert done.report["notes"] == ["/dev/sdb1 (ext4) is mounted nowhere: looked into as /home"]
    changed = {c["path"] for op in done.report["operations"] for c in op["changes"]}
    assert "/dev/sdb1:/home/alice/.ssh/id_rsa" in changed


@pytest.mark.parametrize("problem", ["it is encrypted, and no key was given", ""])
def test_what_cannot_be_looked_into_is_named_and_refused(guest: MemoryGuest, problem: str) -> None:
    """Without a problem of its own it is another operating system."""
    host = MemoryHost(guest, FACTS, left=others(sdb1=problem), others={"/dev/sdb1": clean()})
    warned: list[str] = []

    class Heard(Quiet):
        def warn(self, message: str) -> None:
            warned.append(message)

    report = generalize(host, [()], select(), Heard()).report
    assert report["check"]["verdict"] == "unknown"
    (reason,) = report["check"]["unread"]
    assert reason in warned
    assert (problem or "another operating system") in reason
    with pytest.raises(Refused, match="not looked into"):
        check_os_state(report, OsState.GENERALIZED, Quiet(), force=False)
    forced = check_os_state(report, OsState.GENERALIZED, Quiet(), force=True)
    assert forced["check"]["forced"] is True


def test_what_lies_below_a_mount_point_is_cleaned_and_nothing_beside_it(
    guest: MemoryGuest,
) -> None:
    below = MemoryGuest()
    below.plant("/etc/passwd", guest.read("/etc/passwd"))
    below.plant("/home/alice/.ssh/id_rsa", "hidden", uid=1000)
    below.plant("/root/.bash_history", "not below it")
    host = MemoryHost(guest, FACTS, below=below, covers=("/home",))
    generalize(host, [()], select(), Quiet())
    assert "/home/alice" not in tree(below.root)
    assert below.read("/root/.bash_history") == b"not below it"
    assert b"alice" in below.read("/etc/passwd")
    assert b"alice" not in guest.read("/etc/passwd")


def test_a_check_looks_elsewhere_too_and_changes_nothing() -> None:
    home = stray_home()
    before = tree(home.root)
    host = MemoryHost(clean(), FACTS, left=others(sdb1=""), others={"/dev/sdb1": home})
    with host.session([()], writable=False) as session:
        found = evidence(session, FACTS)
    assert found is not None
    assert found.verdict == "unknown"
    assert any("/dev/sdb1:/home/alice/.ssh/id_rsa" in reason for reason in found.reasons)
    assert tree(home.root) == before


@pytest.mark.parametrize(
    ("files", "place"),
    [
        (("/etc/passwd", "/usr/bin/ls"), "/"),
        (("/log/syslog", "/lib/x"), "/var"),
        (("/journal/x", "/wtmp"), "/var/log"),
        (("/loader/entries/a.conf",), "/boot"),
        (("/bin/ls", "/lib/a", "/share/b"), "/usr"),
        (("/.ssh/id_rsa",), "/home/user"),
        (("/data/x", "/zoe/.bash_history"), "/home"),
        (("/database/ibdata1",), "/srv"),
    ],
)
def test_content_says_where_a_file_system_belongs(files: tuple[str, ...], place: str) -> None:
    made = MemoryGuest()
    for path in files:
        made.plant(path, "x")
    assert place_of(made) == place


def test_what_is_left_out_elsewhere_is_told_too(guest: MemoryGuest) -> None:
    """As `minimal` leaves people's keys, wherever they are."""
    home = stray_home()
    host = MemoryHost(clean(), FACTS, left=others(sdb1=""), others={"/dev/sdb1": home})
    report = generalize(host, [()], select("minimal"), Quiet()).report
    assert report["check"]["verdict"] == "unknown"
    reasons = report["check"]["reasons"]
    assert any("ssh-user-keys would change /dev/sdb1:/home/alice" in item for item in reasons)
    assert home.read("/alice/.ssh/id_rsa") == b"key"


def test_an_image_mode_system_is_named(guest: MemoryGuest) -> None:
    """Its files lie in deployments: inspection says so, and nothing can be looked into."""
    facts = GuestFacts("unknown", notes=("/dev/sda1 holds an image-mode system (ostree)",))
    found = look_at(facts)
    assert found.evidence.verdict == "unknown"
    assert found.evidence.unread == facts.notes
    with pytest.raises(Refused, match="image-mode"):
        check_os_state(found.document(), OsState.GENERALIZED, Quiet(), force=False)


def look_at(facts: GuestFacts) -> Survey:
    class NoDisks:
        def create_overlay(self, chain: object, path: object) -> object:
            raise AssertionError

    host = MemoryHost(MemoryGuest(), facts)
    return survey(host, cast("Images", NoDisks()), (), Path(), Quiet())


def test_unread_weakens_only_a_good_verdict() -> None:
    good = Evidence("generalized", ("no machine id",)).with_unread(["x"])
    assert (good.verdict, good.reasons, good.unread) == ("unknown", ("x",), ("x",))
    bad = Evidence("specialized", ("a key",)).with_unread(["x"])
    assert (bad.verdict, bad.reasons) == ("specialized", ("a key", "x"))


def test_what_a_dry_run_makes_is_seen_by_it() -> None:
    guest = clean()
    guest.plant("/etc/hosts", "old")
    dry = ScopedGuest(guest)
    edit = Editor(dry, "t")
    edit.write_text("/etc/new/file", "text")
    edit.write_text("/etc/hosts", "new")
    edit.symlink("/etc/hosts", "/etc/link")
    edit.set_name("/etc/passwd", "renamed")
    edit.remove("/etc/shadow")
    assert (edit.text("/etc/new/file"), edit.text("/etc/link")) == ("text", "new")
    assert dry.names("/etc") == ["hosts", "link", "machine-id", "new", "renamed"]
    assert dry.glob("/etc/shadow") == []
    assert guest.names("/etc") == ["hosts", "machine-id", "passwd", "shadow"]
    assert [change.action for change in edit.changes] == [
        *(Action.WRITTEN, Action.WRITTEN, Action.LINKED, Action.RENAMED, Action.REMOVED),
    ]
    kept: Mapping[str, object] = tree(guest.root)
    assert "/etc/new" not in kept
