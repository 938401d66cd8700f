"""Windows guests in memory: every state of the fixtures, their hives read by dissect.regf."""

import hashlib
import struct

import pytest

from fixtures import hive
from fixtures.windows_states import (
    ANSWERS,
    CONFIG,
    DATA_KEPT,
    INTERFACE,
    LEFTOVERS,
    STATES,
    UPDATE,
    WINLOGON,
    State,
)
from pipeline.errors import InvalidParameter, Refused, StageFailed
from pipeline.guest.checks import evidence
from pipeline.guest.generalize import Generalized, generalize
from pipeline.guest.operations import Context, Editor
from pipeline.guest.profiles import select
from pipeline.guest.windows import arm, registry, unattend
from pipeline.guest.windows.classify import Classification, Verdict, Weight, classify, locked
from pipeline.guest.windows.clean import remove_paging
from pipeline.guest.windows.registry import as_text
from pipeline.guest.windows.tree import Tree
from pipeline.ports import GuestFacts, VolumeState
from pipeline.ports.hives import RegistryValue
from tests.contract.memory_guest import MemoryGuest, MemoryHive, MemoryHost
from tests.unit.test_generalize import Quiet

BY_NAME = {state.name: state for state in STATES}
VISIBLE = [state for state in STATES if state.name != "bitlocker"]
FACTS = GuestFacts(
    os_type="windows",
    architecture="x86_64",
    filesystems=(("/dev/sda1", "ntfs"), ("/dev/sdb1", "ntfs")),
    mountpoints=(("/", "/dev/sda1"),),
)
GONE_BY_DEFAULT = [path for path in LEFTOVERS if not path.startswith("Windows/Panther/unattend")]


def planted(state: State) -> MemoryGuest:
    guest = MemoryGuest()
    for path, content in state.files().items():
        guest.plant(f"/{path}", content)
    return guest


def volumes(state: State) -> tuple[VolumeState, ...]:
    return (VolumeState("/dev/sda1", "dirty" in state.defects, journal=False),)


def classified(name: str) -> Classification:
    state = BY_NAME[name]
    return classify(planted(state), FACTS, volumes(state))


def generalized(guest: MemoryGuest, state: State, *enable: str, force: bool = False) -> Generalized:
    host = MemoryHost(guest, FACTS, states=volumes(state))
    return generalize(host, [()], select(enable=enable, force=force), Quiet())


@pytest.mark.parametrize("state", VISIBLE, ids=lambda state: state.name)
def test_each_state_is_told_apart(state: State) -> None:
    found = classify(planted(state), FACTS, volumes(state))
    assert found.verdict.value == state.verdict
    assert tuple(item.name for item in found.obstacles) == state.obstacles
    assert all(item.hint and item.what and item.where for item in found.obstacles)
    assert found.secrets == ("/Windows/Panther/unattend.xml",)
    assert not found.armed


def test_every_piece_of_evidence_is_named() -> None:
    found = classified("contradicting")
    said = {clue.where.rsplit("\\", 1)[-1]: clue for clue in found.clues}
    assert said["ImageState"].says is Verdict.GENERALIZED
    assert said["SetupType"].says is Verdict.SPECIALIZED
    assert said["/Windows/Setup/State/State.ini"].value == "IMAGE_STATE_COMPLETE"
    assert said["ComputerName"].value == "WEB-7"  # of the current control set, which is not 001
    # what scripts set, too, decides nothing
    assert said["GeneralizationState"].value == "7"
    assert said["GeneralizationState"].says is None
    assert said["MachineGuid"].weight is Weight.SUPPORTING
    text = "\n".join(found.reasons)
    assert "SYSTEM\\Setup\\SetupType: 0 (strong: specialized)" in text
    assert "static 198.51.100.7" in text


def test_names_are_found_in_any_case() -> None:
    guest = MemoryGuest()
    for path, content in BY_NAME["generalized"].files().items():
        guest.plant(f"/{path.upper()}", content)
    found = classify(guest, FACTS, ())
    assert found.verdict is Verdict.GENERALIZED
    assert found.secrets == ("/WINDOWS/PANTHER/UNATTEND.XML",)


def test_a_journal_that_was_not_replayed_is_an_obstacle() -> None:
    state = BY_NAME["generalized"]
    dirty = (VolumeState("/dev/sda1", dirty=False, journal=True),)
    (obstacle,) = classify(planted(state), FACTS, dirty).obstacles
    assert (obstacle.name, obstacle.unsafe) == ("dirty-volume", True)
    assert "$LogFile" in obstacle.what


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda raw: raw[:100] + b"x" + raw[101:], "checksum"),
        (lambda raw: b"xxxx" + raw[4:], "no registry hive"),
        (lambda raw: raw[:200], "no registry hive"),
    ],
)
def test_damaged_hives_are_refused(damage: object, reason: str) -> None:
    state = BY_NAME["generalized"]
    guest = planted(state)
    assert callable(damage)
    guest.plant(f"/{CONFIG}/SAM", damage(state.files()[f"{CONFIG}/SAM"]))
    (obstacle,) = classify(guest, FACTS, ()).obstacles
    assert obstacle.name == "dirty-hive"
    assert reason in obstacle.what


def test_a_log_that_the_hive_has_taken_in_is_no_obstacle() -> None:
    """Windows leaves old entries in its logs: their mere length says nothing."""
    state = BY_NAME["generalized"]
    assert state.files()[f"{CONFIG}/SYSTEM.LOG1"] == hive.log(7)
    assert classified("generalized").obstacles == ()
    (obstacle,) = classified("dirty-log").obstacles
    assert "change 9" in obstacle.what


def test_an_unreadable_hive_is_named_and_decides_nothing() -> None:
    state = BY_NAME["generalized"]
    guest = planted(state)
    header = bytearray(state.files()[f"{CONFIG}/SOFTWARE"][:4096])
    struct.pack_into("<I", header, 0x24, 0x00FFFFF0)
    struct.pack_into("<I", header, 0x1FC, hive.checksum(header))
    guest.plant(f"/{CONFIG}/SOFTWARE", bytes(header))
    found = classify(guest, FACTS, ())
    assert "unreadable-hive" in [item.name for item in found.obstacles]
    assert found.verdict is Verdict.UNKNOWN


def test_bitlocker_is_said_where_no_system_is_found() -> None:
    facts = GuestFacts(os_type="unknown", filesystems=(("/dev/sda1", "BitLocker"),))
    found = locked(facts)
    assert found is not None
    assert (found.verdict, found.obstacles[0].name) == (Verdict.UNKNOWN, "bitlocker")
    assert "manage-bde" in found.obstacles[0].hint
    assert locked(GuestFacts(os_type="unknown", filesystems=(("/dev/sda1", "ext4"),))) is None
    host = MemoryHost(MemoryGuest(), facts)
    with host.session([()], writable=False) as session:
        shown = evidence(session, facts)
    assert shown is not None
    assert shown.reasons == ("bitlocker: /dev/sda1 is encrypted with BitLocker",)
    with pytest.raises(Refused, match="BitLocker"):
        generalize(host, [()], select(force=True), Quiet())


def test_a_generalized_guest_is_cleaned() -> None:
    state = BY_NAME["generalized"]
    guest = planted(state)
    guest.plant("/Windows/Panther/setup.etl", b"x")
    before = {name: guest.read(f"/{CONFIG}/{name}") for name in ("SAM", "SECURITY")}
    done = generalized(guest, state)
    for path in GONE_BY_DEFAULT:
        assert guest.stat(f"/{path}") is None, path
    for directory in ("Windows/Temp", "Windows/Prefetch", "Windows/System32/winevt/Logs"):
        assert guest.names(f"/{directory}") == []
        assert guest.stat(f"/{directory}") is not None
    # what the first boot needs, and what only Sysprep may touch
    assert guest.read("/Windows/Panther/unattend.xml") == ANSWERS.encode()
    assert guest.names("/Windows/Panther") == ["unattend.xml"]
    assert {name: guest.read(f"/{CONFIG}/{name}") for name in before} == before
    with guest.hive(f"/{CONFIG}/SOFTWARE") as software:
        assert software.values(UPDATE) == ["InstallerVersion"]
        assert software.values(f"{UPDATE}\\Auto Update") == ["AUOptions"]
    with guest.hive(f"/{CONFIG}/SYSTEM") as system:
        assert sorted(system.values(INTERFACE)) == ["EnableDHCP", "IPAddress"]
        parameters = system.values("ControlSet002\\Services\\Tcpip\\Parameters")
        assert sorted(parameters) == ["Hostname", "NV Hostname"]
        assert system.values("MountedDevices") == ["\\DosDevices\\C:"]
    report = done.report["windows"]
    assert (report["verdict"], report["forced"]) == ("generalized", False)
    assert report["secrets"] == ["/Windows/Panther/unattend.xml"]
    assert len(report["evidence"]) > 8
    changed = {item["name"] for item in done.report["operations"] if item["result"] == "changed"}
    assert changed == {item.name for item in select().operations if "windows" in item.families} - {
        "windows-sysprep-hook"
    }
    again = generalized(guest, state)
    assert {item["result"] for item in again.report["operations"]} == {
        "nothing to do",
        "not applicable",
    }


def test_answers_with_passwords_are_removed_on_request() -> None:
    state = BY_NAME["generalized"]
    guest = planted(state)
    guest.plant("/Windows/Panther/Unattend/harmless.xml", "<unattend><a>b</a></unattend>")
    with guest.hive(f"/{CONFIG}/SOFTWARE", writable=True) as software:
        software.set(WINLOGON, "DefaultPassword", as_text("secret"))
    assert "SOFTWARE\\" + WINLOGON + "\\DefaultPassword" in classify(guest, FACTS, ()).secrets
    generalized(guest, state, "windows-unattend")
    with guest.hive(f"/{CONFIG}/SOFTWARE") as software:
        assert software.values(WINLOGON) == ["Shell"]
    assert unattend.answer_files(Tree(guest)) == ["/Windows/Panther/Unattend/harmless.xml"]


@pytest.mark.parametrize(
    ("answers", "holds"),
    [
        (ANSWERS, True),
        ("<Password><PlainText>true</PlainText><Value>x</Value></Password>", True),
        ("<x:Password>\n <x:Value>aQ==</x:Value></x:Password>", True),
        ("<Credentials><Password>x</Password></Credentials>", True),
        ("<AdministratorPassword>*SENSITIVE*DATA*DELETED*</AdministratorPassword>", False),
        ("<Password><Value></Value><PlainText>true</PlainText></Password>", False),
        ("<Password/><Value>x</Value>", False),
        ("<ComputerName>x</ComputerName>", False),
        ("<Password><Value><![CDATA[x]]></Value></Password>", True),
        ("<Password>" * 200_000, False),
        ("<" * 200_000, False),
    ],
)
def test_passwords_in_answers(answers: str, holds: bool) -> None:
    assert unattend.holds_password(answers) is holds


def test_a_hostile_answer_file_takes_no_time() -> None:
    assert not unattend.holds_password("<" + "a" * (1 << 20))


@pytest.mark.parametrize(
    "state",
    [state for state in VISIBLE if state.verdict != "generalized" or state.obstacles],
    ids=lambda state: state.name,
)
def test_everything_else_is_refused_and_left_alone(state: State) -> None:
    guest = planted(state)
    with pytest.raises(Refused) as caught:
        generalized(guest, state)
    assert caught.value.hint
    assert caught.value.exit_status == 6
    for path, content in state.files().items():
        assert guest.read(f"/{path}", len(content) + 1) == content


@pytest.mark.parametrize("name", ["specialized", "domain-member", "half-way", "pending-reboot"])
def test_force_is_recorded(name: str) -> None:
    state = BY_NAME[name]
    guest = planted(state)
    report = generalized(guest, state, force=True).report["windows"]
    assert report["forced"] is True
    assert report["verdict"] == state.verdict
    assert guest.stat("/pagefile.sys") is None
    with guest.hive(f"/{CONFIG}/SOFTWARE") as software:  # never offline
        assert software.values("Microsoft\\Cryptography") == ["MachineGuid"]


@pytest.mark.parametrize("name", ["hibernated", "dirty-volume", "dirty-hive", "fast-start"])
def test_force_writes_nothing_that_is_unsafe(name: str) -> None:
    state = BY_NAME[name]
    with pytest.raises(Refused):
        generalized(planted(state), state, force=True)


def test_paging_files_are_found_on_every_volume() -> None:
    state = BY_NAME["generalized-v2"]
    guest, other = planted(state), MemoryGuest()
    for path, content in state.data.items():
        other.plant(f"/{path.upper()}", content)
    other.plant("/ProgramData/other.sys", b"kept")
    both = (*volumes(state), VolumeState("/dev/sdb1", dirty=False, journal=False))
    host = MemoryHost(guest, FACTS, states=both, others={"/dev/sdb1": other})
    report = generalize(host, [()], select(), Quiet()).report
    left = [path for path, found in other.find("/") if found.kind == "file"]
    assert sorted(left) == ["/ProgramData/other.sys", f"/{DATA_KEPT.upper()}"]
    assert guest.stat("/pagefile.sys") is None
    changes = {item["name"]: item["changes"] for item in report["operations"]}
    assert {"action": "removed", "path": "/dev/sdb1:/PROGRAMDATA/PAGING.SYS"} in changes[
        "windows-paging"
    ]
    assert changes["windows-recycle-bin"][-1]["path"].startswith("/dev/sdb1:/$RECYCLE.BIN/")
    kept = generalize(host, [()], select(skip=["windows-paging", "windows-recycle-bin"]), Quiet())
    assert "/dev/sdb1" not in str(kept.report["operations"])


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ("C:\\pagefile.sys", "/pagefile.sys"),
        ("?:\\pagefile.sys", "/pagefile.sys"),
        ("\\??\\D:\\pagefile.sys", "/pagefile.sys"),
        ("d:\\Program Data\\page 1.sys 4096 8192", "/Program Data/page 1.sys"),
        ("D:\\*.sys 0 0", None),
        ("D:\\..\\Windows", None),
        ("D:\\", None),
        ("pagefile.sys", None),
        ("", None),
    ],
)
def test_entries_of_paging_files(entry: str, path: str | None) -> None:
    root = hive.tree(
        {
            "Select": {"Current": hive.number(2)},
            "ControlSet002\\Control\\Session Manager\\Memory Management": {
                "PagingFiles": hive.texts(entry)
            },
        }
    )
    found = registry.paging_files(MemoryHive(hive.write(root)))
    assert found == ((path,) if path else ())


def test_a_hostile_list_of_paging_files_removes_no_directory() -> None:
    state = BY_NAME["generalized"]
    guest = planted(state)
    with guest.hive(f"/{CONFIG}/SYSTEM", writable=True) as system:
        key = "ControlSet002\\Control\\Session Manager\\Memory Management"
        entry = hive.texts("C:\\Windows", "C:\\Users\\Public")
        system.set(key, "PagingFiles", RegistryValue(entry.kind, entry.data))
    generalized(guest, state)
    assert guest.stat("/Windows") is not None
    assert guest.stat("/Windows/System32/cmd.exe") is not None


def test_paging_is_never_taken_from_a_hibernated_guest() -> None:
    guest = planted(BY_NAME["hibernated"])
    with pytest.raises(StageFailed, match="hibernated"):
        remove_paging(Editor(guest, "windows-paging"), Context(FACTS))
    assert guest.stat("/pagefile.sys") is not None


def test_arming_writes_a_hook_that_undoes_itself() -> None:
    guest = planted(BY_NAME["specialized"])
    arm.check(classified("specialized"))
    written = arm.arm(guest, "x86_64", None)
    assert len(written) == 5
    with guest.hive(f"/{CONFIG}/SYSTEM") as system:
        line = system.get("Setup", "CmdLine")
        assert line is not None
        assert line.data.decode("utf-16-le").rstrip("\0").endswith("\\Setup\\Galleria\\setup.cmd")
        kind = system.get("Setup", "SetupType")
        assert kind is not None
        assert kind.data == b"\2\0\0\0"
    setup = guest.read(f"{arm.DIRECTORY}/setup.cmd").decode("ascii")
    assert "\n" not in setup.replace("\r\n", "")
    # first of all it takes itself out, so that a failure is no loop
    lines = [line for line in setup.split("\r\n") if not line.startswith(("@", "rem"))]
    assert lines[0].startswith("reg add HKLM\\SYSTEM\\Setup /v SetupType /t REG_DWORD /d 0")
    sysprep = guest.read(f"{arm.DIRECTORY}/sysprep.cmd").decode("ascii")
    assert "/generalize /oobe /shutdown" in sysprep
    assert sysprep.index("schtasks /delete") < sysprep.index("sysprep.exe")
    answers = guest.read(f"{arm.DIRECTORY}/unattend.xml").decode()
    assert 'processorArchitecture="amd64"' in answers
    assert not unattend.holds_password(answers)
    armed = classify(guest, FACTS, ())
    assert armed.armed
    assert armed.reasons[0] == "armed: its next boot runs Sysprep"
    assert armed.verdict is Verdict.SPECIALIZED
    with pytest.raises(Refused, match="armed already"):
        arm.check(armed)


def test_given_answers_are_used_and_gone_after_sysprep() -> None:
    guest = planted(BY_NAME["specialized"])
    arm.arm(guest, "unknown", arm.check_unattend(ANSWERS.encode("utf-16")))
    assert guest.read(f"{arm.DIRECTORY}/unattend.xml") == ANSWERS.encode("utf-16")
    for path, content in BY_NAME["generalized"].files().items():  # as if it had been booted
        guest.plant(f"/{path}", content)
    generalized(guest, BY_NAME["generalized"])
    assert guest.stat(arm.DIRECTORY) is None


@pytest.mark.parametrize(
    "name", ["generalized", "half-way", "dirty-hive", "domain-member", "pending-reboot"]
)
def test_only_a_sound_specialized_guest_is_armed(name: str) -> None:
    with pytest.raises(Refused) as caught:
        arm.check(classified(name))
    assert caught.value.hint


def test_what_is_no_answer_file_is_refused() -> None:
    with pytest.raises(InvalidParameter):
        arm.check_unattend(b"<html/>")
    with pytest.raises(Refused, match="architecture"):
        arm.arm(planted(BY_NAME["specialized"]), "riscv64", None)


def test_the_hives_of_the_fixtures_are_the_same_on_every_build() -> None:
    one, other = (
        hashlib.sha256(BY_NAME["generalized"].files()[f"{CONFIG}/SYSTEM"]).hexdigest()
        for _ in range(2)
    )
    assert one == other
