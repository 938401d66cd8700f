"""Phony Windows guests of every state, on real NTFS with real hives; judged by hivex's own tools,
by dissect and by a scan of the raw bytes. No real Windows was run for any of this.
"""

import io
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dissect.regf import RegistryHive
from dissect.target import Target

from adapters.guestfs import volumes
from adapters.guestfs.client import GuestfsHost, GuestfsSession
from adapters.guestfs.guest import GuestfsGuest
from adapters.sandbox import Sandbox
from fixtures import windows
from fixtures.debian import default_cache
from fixtures.windows_states import (
    CANARY,
    CONFIG,
    INTERFACE,
    LEFTOVERS,
    PASSWORD,
    STATES,
    UPDATE,
    State,
)
from pipeline.errors import StageFailed
from pipeline.guest.windows.classify import Classification, classify, locked
from pipeline.ports import GuestFacts, ImageFormat, Layer
from tests.home import Home

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def guests(require: Callable[..., None]) -> windows.Guests:
    require(
        "mkntfs", "ntfscp", "guestfish", "sfdisk", "hivexget", "libguestfs-make-fixed-appliance"
    )
    return windows.build()


@pytest.fixture(scope="module")
def home(guests: windows.Guests, tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("home"))
    made.env["XDG_CACHE_HOME"] = str(default_cache().parent)
    made.run("init")
    return made


@pytest.fixture(scope="module")
def session(
    guests: windows.Guests, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GuestfsSession]:
    """One appliance with a private copy of every state's disk."""
    work = tmp_path_factory.mktemp("states")
    chains = []
    for state in STATES:
        disk = work / f"{state.name}.raw"
        subprocess.run(["cp", "--sparse=always", guests.disk(state.name), disk], check=True)
        chains.append((Layer(disk, ImageFormat.RAW),))
    with GuestfsHost(Sandbox(), default_cache()).session(chains, writable=True) as opened:
        yield opened


def device_of(session: GuestfsSession, state: State) -> Any:
    return session._surveyed().devices[STATES.index(state)]


@pytest.fixture(params=STATES, ids=lambda state: state.name)
def found(request: pytest.FixtureRequest, session: GuestfsSession) -> tuple[State, Classification]:
    """A state, and how its disk is classified."""
    state: State = request.param
    device = device_of(session, state)
    if device.kind == "BitLocker":
        facts = GuestFacts(os_type="unknown", filesystems=((device.name, device.kind),))
        classified = locked(facts)
        assert classified is not None
        return state, classified
    listed = [
        item
        for item in volumes.states(session._helper, session._surveyed())
        if item.device == device.name
    ]
    assert len(listed) == 1
    facts = GuestFacts(os_type="windows", filesystems=((device.name, "ntfs"),))
    session._helper.call("umount_all")
    session._helper.call("mount_ro", device.name, "/")
    return state, classify(GuestfsGuest(session._helper), facts, listed)


def test_each_state_is_told_apart(found: tuple[State, Classification]) -> None:
    state, classification = found
    assert classification.verdict.value == state.verdict
    assert tuple(item.name for item in classification.obstacles) == state.obstacles
    if "bitlocker" not in state.defects:
        assert classification.secrets == ("/Windows/Panther/unattend.xml",)
        assert len(classification.clues) >= 12


def test_a_mount_that_falls_back_to_read_only_is_noticed(session: GuestfsSession) -> None:
    """ntfs-3g mounts a hibernated volume read-only, and says that it went well."""
    state = next(item for item in STATES if item.name == "hibernated")
    session._helper.call("umount_all")
    session._helper.call("mount", device_of(session, state).name, "/")
    with pytest.raises(StageFailed, match="read-only"):
        session._check_writable()
    session._helper.call("umount_all")


def test_a_generalized_guest_is_cleaned(home: Home, guests: windows.Guests, tmp_path: Path) -> None:
    source, out = guests.disk("generalized"), tmp_path / "out.raw"
    done = home.json(
        *("generalize", str(source), "--to", "raw", "--out", str(out)),
        *("--enable", "windows-unattend"),
    )
    report = done["report"]["windows"]
    assert (report["verdict"], report["forced"]) == ("generalized", False)
    planted = canaries(source)
    expected = {f"{CANARY}{path}" for path in LEFTOVERS} | {PASSWORD}
    assert planted >= expected | {windows.DELETED, windows.DELETED_SMALL}
    assert canaries(out) == set()
    assert wide(source)
    assert not wide(out)
    volume = tmp_path / "volume"
    with out.open("rb") as disk:
        disk.seek(windows.PARTITION)
        volume.write_bytes(disk.read(windows.VOLUME))
    assert "processed successfully" in tool("ntfsfix", "-n", volume)
    target = Target.open(str(out))
    root = target.fs.path("sysvol")
    assert not any((root / path).exists() for path in LEFTOVERS)
    assert (root / "Windows/Setup/State/State.ini").exists()
    # the hives are whole for two readers that share no code with what changed them
    system, software = tmp_path / "SYSTEM", tmp_path / "SOFTWARE"
    for hive in (system, software):
        hive.write_bytes((root / CONFIG / hive.name).read_bytes())
    assert "InstallerVersion" in tool("hivexget", software, UPDATE)
    assert "SusClientId" not in tool("hivexget", software, UPDATE)
    assert tool("hivexget", system, INTERFACE, "EnableDHCP").strip() == "1"
    names = [
        value.name
        for value in RegistryHive(io.BytesIO(system.read_bytes())).open(INTERFACE).values()
    ]
    assert sorted(names) == ["EnableDHCP", "IPAddress"]
    for name in ("SAM", "SECURITY"):  # never touched offline
        before = Target.open(str(source)).fs.path("sysvol") / CONFIG / name
        assert before.read_bytes() == (root / CONFIG / name).read_bytes()


def test_a_specialized_guest_is_armed(home: Home, guests: windows.Guests, tmp_path: Path) -> None:
    source, out = guests.disk("specialized"), tmp_path / "armed.raw"
    answers = tmp_path / "answers.xml"
    answers.write_text('<unattend xmlns="urn:schemas-microsoft-com:unattend"/>')
    done = home.json(
        *("generalize", str(source), "--to", "raw", "--out", str(out)),
        *("--arm-sysprep", "--unattend", str(answers)),
    )
    assert f"file={out}" in done["boot"]
    assert "format=raw" in done["boot"]
    root = Target.open(str(out)).fs.path("sysvol")
    directory = root / "Windows/Setup/Galleria"
    assert sorted(item.name for item in directory.iterdir()) == [
        "setup.cmd",
        "sysprep.cmd",
        "unattend.xml",
    ]
    assert (directory / "unattend.xml").read_text() == answers.read_text()
    hive = RegistryHive(io.BytesIO((root / CONFIG / "SYSTEM").read_bytes()))
    setup = {value.name: value.value for value in hive.open("Setup").values()}
    assert setup["SetupType"] == 2
    assert setup["CmdLine"].endswith("setup.cmd")
    assert setup["OOBEInProgress"] == 0
    shown = home.run("inspect", str(out)).stdout
    assert "specialized" in shown
    assert "SYSTEM\\Setup\\CmdLine: cmd.exe /d /c %SystemRoot%\\Setup\\Galleria\\setup.cmd" in shown
    assert "IMAGE_STATE_COMPLETE (strong: specialized)" in shown
    assert "/Windows/Panther/unattend.xml holds a password" in shown


def canaries(disk: Path) -> set[str]:
    """Every canary in the raw bytes of a file: with what is in free space and slack."""
    lines = tool("grep", "-a", "-o", f"{CANARY}[-A-Za-z0-9/.$_ ]*", disk)
    return {line.strip() for line in lines.splitlines()}


def wide(disk: Path) -> bool:
    """Whether a canary is there as the registry writes text."""
    return CANARY.encode("utf-16-le") in disk.read_bytes()


def tool(*argv: str | Path) -> str:
    done = subprocess.run([str(word) for word in argv], capture_output=True, check=False)
    assert done.returncode in ((0, 1) if argv[0] == "grep" else (0,)), done.stderr
    return done.stdout.decode(errors="replace")
