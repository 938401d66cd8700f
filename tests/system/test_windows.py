"""Phony Windows guests of every state, on real NTFS with real hives; judged by hivex's own tools,
by dissect and by a scan of the raw bytes. No real Windows was run for any of this.
"""

import hashlib
import io
import shlex
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
from adapters.process.sandbox import Sandbox
from fixtures import windows
from fixtures.debian import default_cache
from fixtures.windows_states import (
    CANARY,
    CONFIG,
    DATA,
    DATA_KEPT,
    DATA_LEFTOVERS,
    HOSTS,
    INTERFACE,
    LEFTOVERS,
    PASSWORD,
    SECOND_VOLUME,
    STATES,
    TAG,
    UPDATE,
    State,
)
from pipeline.errors import Refused, StageFailed
from pipeline.guest.windows import arm, policy
from pipeline.guest.windows.classify import Classification, classify, locked
from pipeline.guest.windows.inventory import windows_inventory
from pipeline.ports import GuestFacts, ImageFormat, Layer, VolumeState
from tests.home import Home

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
ACTIONS = "Windows/System32/Sysprep/Panther/setupact.log"


@pytest.fixture(scope="module")
def guests(require: Callable[..., None]) -> windows.Guests:
    require(
        "mkntfs", "ntfscp", "guestfish", "sfdisk", "hivexget", "libguestfs-make-fixed-appliance"
    )
    return windows.build()


@pytest.fixture(scope="module")
def home(guests: windows.Guests, tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("home"))
    made.env["GALLERIA_CACHE"] = str(default_cache())
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


def devices_of(session: GuestfsSession, state: State) -> list[Any]:
    """The devices on a state's disk that hold what Windows has."""
    index = STATES.index(state)
    return [
        device
        for device in session._surveyed().devices
        if device.pieces[0].disk == index and device.kind in ("ntfs", "BitLocker")
    ]


@pytest.fixture(scope="module")
def volume_states(session: GuestfsSession) -> dict[str, VolumeState]:
    listed = volumes.states(session._helper, session._surveyed())
    return {item.device: item for item in listed}


@pytest.fixture(params=STATES, ids=lambda state: state.name)
def found(
    request: pytest.FixtureRequest,
    session: GuestfsSession,
    volume_states: dict[str, VolumeState],
) -> tuple[State, Classification]:
    """A state, and how its disk is classified."""
    state: State = request.param
    system, *others = devices_of(session, state)
    kinds = tuple((device.name, device.kind) for device in (system, *others))
    if system.kind == "BitLocker":
        classified = locked(GuestFacts(os_type="unknown", filesystems=kinds))
        assert classified is not None
        return state, classified
    assert len(others) == (state.generation == "V2")
    facts = GuestFacts(os_type="windows", filesystems=kinds)
    session._helper.call("umount_all")
    session._helper.call("mount_ro", system.name, "/")
    listed = [volume_states[name] for name, _ in kinds]
    return state, classify(GuestfsGuest(session._helper), facts, listed)


def test_each_state_is_told_apart(found: tuple[State, Classification]) -> None:
    state, classification = found
    assert classification.verdict.value == state.verdict
    assert tuple(item.name for item in classification.obstacles) == state.obstacles
    if "bitlocker" not in state.defects:
        assert classification.secrets == ("/Windows/Panther/unattend.xml",)
        assert len(classification.clues) >= 12
    paging = ("/pagefile.sys", "/ProgramData/paging.sys") if state.generation == "V2" else ()
    assert classification.paging == paging
    # what each state is good for, as it is and by force
    unsafe = any(item.unsafe for item in classification.obstacles)
    clean = state.verdict == "generalized" and not state.obstacles
    assert admitted(policy.admit, classification, force=False) is clean
    assert admitted(policy.admit, classification, force=True) is not unsafe
    armable = state.verdict == "specialized" and not state.obstacles
    assert admitted(arm.check, classification, force=False) is armable
    forcible = not unsafe and state.verdict != "generalized"
    assert admitted(arm.check, classification, force=True) is forcible


def admitted(check: Callable[..., None], found: Classification, *, force: bool) -> bool:
    try:
        check(found, force=force)
    except Refused:
        return False
    return True


def test_programs_profiles_and_files_are_listed(session: GuestfsSession) -> None:
    state = next(item for item in STATES if item.name == "generalized-v2")
    session._helper.call("umount_all")
    session._helper.call("mount_ro", devices_of(session, state)[0].name, "/")
    facts = GuestFacts("windows", "windows", "10.0")
    found = windows_inventory(GuestfsGuest(session._helper), facts)
    names = {(item["name"], item["version"]) for item in found["sbom"]["components"]}
    assert names == {("Contoso Agent", "1.2.3"), ("Contoso Old", "")}
    assert list(found["users"]) == ["Administrator"]
    expected = hashlib.sha256(state.files()[HOSTS]).hexdigest()
    assert [expected.startswith(digest) for digest in found["files"].values()] == [True]


def test_a_mount_that_falls_back_to_read_only_is_noticed(session: GuestfsSession) -> None:
    """ntfs-3g mounts a hibernated volume read-only, and says that it went well."""
    state = next(item for item in STATES if item.name == "hibernated")
    session._helper.call("umount_all")
    session._helper.call("mount", devices_of(session, state)[0].name, "/")
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
    assert planted >= expected | {windows.DELETED, windows.DELETED_SMALL, windows.SLACK}
    assert canaries(out) == set()
    assert wide(source)
    assert not wide(out)
    check_volume(out, windows.PARTITION, tmp_path)
    target = Target.open(str(out))
    root = target.fs.path("sysvol")
    assert not any((root / path).exists() for path in LEFTOVERS)
    assert (root / "Windows/Setup/State/State.ini").exists()
    assert (root / windows.SLACK_FILE).read_bytes() == windows.SLACK_CONTENT
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


def test_a_specialized_guest_is_armed_generalized_and_cleaned(
    home: Home, guests: windows.Guests, tmp_path: Path
) -> None:
    """All the way of a UEFI machine with two volumes; Sysprep itself is played by the test."""
    source, armed = guests.disk("specialized-v2"), tmp_path / "armed,1.raw"
    answers = tmp_path / "answers.xml"
    answers.write_text('<unattend xmlns="urn:schemas-microsoft-com:unattend"/>')
    before = source.stat()
    done = home.json(
        *("generalize", str(source), "--to", "raw", "--out", str(armed)),
        *("--arm-sysprep", "--unattend", str(answers)),
    )
    assert (source.stat().st_mtime_ns, source.stat().st_ctime_ns) == (
        before.st_mtime_ns,
        before.st_ctime_ns,
    )
    check_armed(armed, answers)
    check_boot_command(done["boot"])

    looked = home.json("generalize", "--check", str(armed), status=1)
    reasons = looked["check"]["reasons"]
    assert (looked["generalized"], looked["check"]["verdict"]) == (False, "specialized")
    assert "armed: its next boot runs Sysprep" in reasons
    assert any("setup.cmd" in reason for reason in reasons)
    assert "/Windows/Panther/unattend.xml holds a password" in reasons

    play_sysprep(armed, tmp_path)
    looked = home.json("generalize", "--check", str(armed))
    assert (looked["generalized"], looked["check"]["verdict"]) == (True, "generalized")

    out = tmp_path / "out.raw"
    done = home.json("generalize", str(armed), "--to", "raw", "--out", str(out))
    changes = {item["name"]: item["changes"] for item in done["report"]["operations"]}
    (hook,) = changes["windows-sysprep-hook"]
    assert hook["path"] == "/Windows/Setup/Galleria"
    elsewhere = {item["path"] for item in changes["windows-paging"]}
    assert {"/dev/sda3:/pagefile.sys", "/dev/sda3:/ProgramData/paging.sys"} < elsewhere
    expected = {f"{CANARY}D/{path}" for path in DATA_LEFTOVERS}
    assert canaries(armed) >= expected | {windows.DELETED, windows.SLACK}
    assert canaries(out) == {PASSWORD}  # of the answer file: reported, and kept by default
    assert any("holds a password" in reason for reason in done["report"]["check"]["reasons"])
    for offset in (windows.PARTITION_V2, windows.DATA_PARTITION):
        check_volume(out, offset, tmp_path)
    kept = [
        found.path(DATA_KEPT).read_bytes()
        for found in Target.open(str(out)).filesystems
        if found.path(DATA_KEPT).exists()
    ]
    assert kept == [DATA[DATA_KEPT]]


def check_armed(disk: Path, answers: Path) -> None:
    root = Target.open(str(disk)).fs.path("sysvol")
    directory = root / "Windows/Setup/Galleria"
    scripts = {item.name: item.read_bytes() for item in directory.iterdir()}
    assert sorted(scripts) == ["setup.cmd", "sysprep.cmd", "unattend.xml"]
    assert scripts["unattend.xml"] == answers.read_bytes()
    # nothing but Windows's own programs
    assert not any(content.startswith(b"MZ") for content in scripts.values())
    assert b"/generalize /oobe /shutdown" in scripts["sysprep.cmd"]
    hive = RegistryHive(io.BytesIO((root / CONFIG / "SYSTEM").read_bytes()))
    setup = {value.name: value.value for value in hive.open("Setup").values()}
    assert setup["SetupType"] == 2
    assert setup["CmdLine"].endswith("setup.cmd")
    assert setup["OOBEInProgress"] == 0


def check_boot_command(line: str) -> None:
    """QEMU takes it: it opens the disk and the firmware, and waits before the first instruction."""
    argv = [*shlex.split(line), "-S", "-display", "none", "-monitor", "stdio"]
    assert any("if=pflash" in word for word in argv)
    assert any("armed,,1.raw" in word for word in argv)
    done = subprocess.run(argv, input=b"quit\n", capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def play_sysprep(disk: Path, work: Path) -> None:
    """Leave behind what Sysprep leaves: both hives, the state's file, the tag and the log."""
    finished = State("sysprep", "generalized", generalized=True, system=SECOND_VOLUME).files()
    names = (
        f"{CONFIG}/SYSTEM",
        f"{CONFIG}/SOFTWARE",
        "Windows/Setup/State/State.ini",
        TAG,
        ACTIONS,
    )
    volume = cut(disk, windows.PARTITION_V2, work)
    for name in names:
        windows.put(volume, name, finished[name])
    with disk.open("r+b") as file:
        file.seek(windows.PARTITION_V2)
        file.write(volume.read_bytes())


def cut(disk: Path, offset: int, work: Path) -> Path:
    volume = work / "volume"
    with disk.open("rb") as file:
        file.seek(offset)
        volume.write_bytes(file.read(windows.VOLUME))
    return volume


def check_volume(disk: Path, offset: int, work: Path) -> None:
    """Another program than galleria finds nothing wrong with a volume."""
    assert "processed successfully" in tool("ntfsfix", "-n", cut(disk, offset, work))


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
