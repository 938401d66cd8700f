"""Real guests of many kinds: each is generalized, and two machines made of the image are started
twice, by the disk's own boot loader and with a network card. Judged by a scan of the image's raw
bytes, by what the machines' own programs say after a login on the serial console, and by the
packets that they send. fixtures/guests.py says which guests there are.

At night only: each guest is started five times, which takes one to seven minutes each under
software emulation, by how busy the host is.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures import canaries, console, dirty, guests
from fixtures.canaries import Canary
from fixtures.console import Seen
from fixtures.debian import default_cache
from tests.home import Home
from tests.system.test_boot import overlay

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.nightly,
    pytest.mark.timeout(2 * 3600),
    pytest.mark.skipif(os.geteuid() != 0, reason="chroot, loop devices: root"),
]
CLONES = ("one", "two")
NETWORK = "10.0.2."  # QEMU's user-mode network


@dataclass(frozen=True, slots=True)
class Outcome:
    """A guest, the image made of it, and what each clone said at its first and second start."""

    guest: guests.Guest
    image: Path
    first: list[Seen]
    second: list[Seen]

    @property
    def source(self) -> Seen:
        return self.guest.seen


def generalized(guest: guests.Guest, work: Path) -> Path:
    """As a user does it. The tests log in, so their account stays."""
    home = Home(work / "home")
    home.path.mkdir()
    home.env["GALLERIA_CACHE"] = str(default_cache())
    image = work / "image.raw"
    key = ["--key", guest.key] if guest.key else []
    home.run(
        *("generalize", str(guest.disk), "--out", str(image), "--to", "raw"),
        *("--keep-user", console.USER, *key),
    )
    return image


def clones(guest: guests.Guest, image: Path, work: Path) -> tuple[list[Seen], list[Seen]]:
    machines = [
        guest.machine(name, *overlay(image, work / f"{name}.qcow2"), work) for name in CLONES
    ]
    first = [console.visit(machine, work, timeout=900) for machine in machines]
    return first, [console.visit(machine, work, timeout=900) for machine in machines]


@pytest.fixture(scope="module", params=list(guests.RECIPES))
def outcome(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outcome]:
    guest = guests.build(request.param)
    work = tmp_path_factory.mktemp(request.param)
    image = generalized(guest, work)
    yield Outcome(guest, image, *clones(guest, image, work))
    for path in work.iterdir():
        if path.suffix not in (".log", ".pcap"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def own(source: Seen) -> list[Canary]:
    """What the running machine had made of its own, beside what was planted."""
    values = {"machine-id": source.said["machine-id"], "dbus-id": source.said["dbus-id"]}
    values |= {f"host-key-{number}": key for number, key in enumerate(source.host_keys)}
    return [Canary(name, "", value) for name, value in values.items() if value]


def test_no_canary_is_in_the_image(outcome: Outcome) -> None:
    wanted = [*canaries.CANARIES, *own(outcome.source)]
    assert canaries.scan(outcome.image, canaries=wanted) == set()


def test_the_same_scan_finds_what_was_planted(outcome: Outcome) -> None:
    """Not in encrypted bytes, and not what the machine itself wrote over."""
    found = canaries.scan(outcome.guest.disk)
    if outcome.guest.key:
        assert found == set()
    else:
        assert len(found) >= 35
        assert {"alice-ssh-key", "bob-pgpass", "root-hash", "syslog-rotated"} <= found


def test_clones_are_machines_of_their_own(outcome: Outcome) -> None:
    # where nothing makes /etc/machine-id (System V), D-Bus makes an id of its own
    ids = [seen.said["machine-id"] or seen.said["dbus-id"] for seen in machines(outcome)]
    assert all(len(item) == 32 for item in ids)
    assert len(set(ids)) == 3
    assert all(
        seen.said["dbus-id"] in ("", item)
        for seen, item in zip(machines(outcome), ids, strict=True)
    )
    keys = [set(seen.host_keys) for seen in machines(outcome)]
    assert all(len(found) >= len(keys[0]) for found in keys)
    assert not _common(*keys)
    asked = [set(seen.client_ids) for seen in machines(outcome)]
    assert all(asked)
    assert not _common(*asked)
    assert len({seen.said["seed"] for seen in outcome.first}) == 2


def machines(outcome: Outcome) -> list[Seen]:
    """The source, and its clones as they were at their first start."""
    return [outcome.source, *outcome.first]


def _common(one: set[str], two: set[str], three: set[str]) -> set[str]:
    return one & two | one & three | two & three


def test_clones_have_their_network(outcome: Outcome) -> None:
    for seen in (outcome.source, *outcome.first, *outcome.second):
        assert seen.said["address"].startswith(NETWORK), seen.said


def test_clones_are_named_by_nobody_but_their_cloud(outcome: Outcome) -> None:
    for name, seen in zip(CLONES, outcome.first, strict=True):
        named = f"{name}-host" if outcome.guest.recipe.cloud_init else "localhost"
        assert (seen.login, seen.said["hostname"]) == (named, named)


def test_only_those_who_were_kept_can_log_in(outcome: Outcome) -> None:
    for name, seen in zip(CLONES, outcome.first, strict=True):
        recipe = outcome.guest.recipe
        made = f"{name}-admin" if recipe.cloud_init else recipe.default_user
        assert seen.said["users"].split() == sorted(filter(None, (console.USER, made)))
        assert seen.said["sudo"] == f"0:{console.USER}"
        assert seen.said["root"] in ("!", "*")


def test_journal_and_package_manager_work(outcome: Outcome) -> None:
    for seen in outcome.first:
        assert int(seen.said["journal"]) >= 1
        assert seen.said.get("journals", "") in ("", seen.said["machine-id"])
        assert seen.said["audit"] == outcome.source.said["audit"]
        assert seen.said["package"] == "installed"


def test_nothing_fails_that_did_not_fail_before(outcome: Outcome) -> None:
    before = set(outcome.source.said.get("failed", "").split())
    for seen in (*outcome.first, *outcome.second):
        assert set(seen.said.get("failed", "").split()) <= before


def test_the_next_start_changes_nothing(outcome: Outcome) -> None:
    varying = {"seed", "journal", "galleria", "journals"}
    for first, second in zip(outcome.first, outcome.second, strict=True):
        assert first.host_keys == second.host_keys
        kept = first.said.keys() - varying
        assert {key: first.said[key] for key in kept} == {key: second.said[key] for key in kept}


def test_what_cloud_inits_own_clean_leaves(tmp_path: Path) -> None:
    """With all its options, in the guest; the disk is written anew, so of its files alone."""
    recipe = guests.RECIPES["cloud"]
    with guests.locked_store() as store:
        guests.assemble(recipe, store, tmp_path)
    source, cleaned = tmp_path / "disk.raw", tmp_path / "cleaned.raw"
    tree = dirty.Tree(tmp_path / "tree")
    guests.inside(tree, "cloud-init clean --logs --seed --machine-id")
    recipe.store(cleaned, tree, tmp_path)
    assert canaries.scan(source) - canaries.scan(cleaned) == {"cloud-user-data"}
