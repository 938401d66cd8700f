"""Is a Windows guest generalized? From what lies on its disks, each piece of evidence named.

No single mark tells: scripts set the registry's image state by hand, and leave GeneralizationState
at 7 on machines that never saw Sysprep. So all strong marks must agree.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from pipeline.errors import Refused
from pipeline.guest.windows import obstacles, registry, unattend
from pipeline.guest.windows.obstacles import Obstacle
from pipeline.guest.windows.tree import Tree, shown
from pipeline.ports import Guest, GuestFacts, VolumeState
from pipeline.ports.hives import Hive

IMAGE_STATE = "Microsoft\\Windows\\CurrentVersion\\Setup\\State"
UPDATE = "Microsoft\\Windows\\CurrentVersion\\WindowsUpdate"
PROTECTION = "Microsoft\\Windows NT\\CurrentVersion\\SoftwareProtectionPlatform"
STATUS = "Setup\\Status\\SysprepStatus"
TAG = "/Windows/System32/Sysprep/Sysprep_succeeded.tag"
ACTIONS = "/Windows/System32/Sysprep/Panther/setupact.log"
STATE_INI = "/Windows/Setup/State/State.ini"
CREATED_TAG = "Successfully created tag file"
HOOK = "galleria"  # in the command line that arm.py writes
DIED = range(3, 7)  # GeneralizationState between the first and the last step
WANTED = 3  # strong marks that agree, at the least


class Verdict(Enum):
    GENERALIZED = "generalized"
    SPECIALIZED = "specialized"
    HALF_WAY = "half-way"
    UNKNOWN = "unknown"


class Weight(Enum):
    """Only strong evidence decides; supporting evidence and notes are shown."""

    STRONG = "strong"
    SUPPORTING = "supporting"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Clue:
    """One piece of evidence: where it lies, what is there, what it speaks for (None: nothing)."""

    where: str
    value: str
    says: Verdict | None
    weight: Weight

    @property
    def decides(self) -> bool:
        return self.weight is Weight.STRONG and self.says is not None

    def __str__(self) -> str:
        meaning = f" ({self.weight.value}: {self.says.value})" if self.says else ""
        return f"{self.where}: {self.value}{meaning}"


@dataclass(frozen=True, slots=True)
class Classification:
    """`obstacles` are reasons not to touch the guest, or not to take it for an image; `secrets`
    are places that hold passwords; `paging` the paging files that the registry names, on whatever
    volume; `volumes` the devices of all NTFS volumes."""

    verdict: Verdict
    clues: tuple[Clue, ...]
    obstacles: tuple[Obstacle, ...] = ()
    secrets: tuple[str, ...] = ()
    armed: bool = False  # its next boot runs Sysprep
    paging: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()

    @property
    def reasons(self) -> tuple[str, ...]:
        return (
            *(["armed: its next boot runs Sysprep"] if self.armed else []),
            *(str(clue) for clue in self.clues),
            *(f"{found.name}: {found.what}" for found in self.obstacles),
            *(f"{path} holds a password" for path in self.secrets),
        )


def classify(guest: Guest, facts: GuestFacts, volumes: Sequence[VolumeState]) -> Classification:
    """Only reads, so the guest may be mounted read-only. `volumes` as they were before."""
    tree = Tree(guest)
    clues: list[Clue] = []
    credentials = [shown(path) for path in unattend.with_passwords(tree)]
    found = [*obstacles.of_disks(tree, facts, volumes)]
    paging: tuple[str, ...] = ()
    for name, read in (("SOFTWARE", _software), ("SYSTEM", _system)):
        path = registry.hive_path(tree, name)
        if path is None:
            continue
        try:
            with guest.hive(path) as hive:
                clues += read(hive)
                found += obstacles.of_registry(name, hive)
                paging += registry.paging_files(hive)
                if registry.text(hive, unattend.WINLOGON, unattend.AUTO_LOGON):
                    credentials.append(f"{name}\\{unattend.WINLOGON}\\{unattend.AUTO_LOGON}")
        except Refused as error:
            found.append(obstacles.unreadable(path, error))
    found += obstacles.of_security(tree)
    clues += _files(tree, clues)
    return Classification(
        verdict(clues),
        tuple(clues),
        obstacles.merged(found),
        tuple(credentials),
        any(HOOK in clue.value.lower() for clue in clues if clue.where.endswith("CmdLine")),
        paging,
        tuple(volume.device for volume in volumes),
    )


def locked(facts: GuestFacts) -> Classification | None:
    """The classification of a disk on which no operating system is found because BitLocker hides
    it; None when it doesn't."""
    if facts.os_type != "unknown":
        return None
    found = tuple(obstacles.encrypted(facts))
    return Classification(Verdict.UNKNOWN, (), found) if found else None


def verdict(clues: Sequence[Clue]) -> Verdict:
    """What all strong evidence agrees on."""
    said = [clue.says for clue in clues if clue.decides]
    if Verdict.HALF_WAY in said:
        return Verdict.HALF_WAY
    agreed = said[0] if len(said) >= WANTED and len(set(said)) == 1 else None
    return agreed or Verdict.UNKNOWN


def _image_state(value: str | None) -> Verdict | None:
    """Microsoft, "Windows Setup States"."""
    if value is None:
        return None
    state = value.strip().upper()
    if state.startswith("IMAGE_STATE_GENERALIZE_RESEAL_TO_"):
        return Verdict.GENERALIZED
    if state == "IMAGE_STATE_COMPLETE":
        return Verdict.SPECIALIZED
    # SPECIALIZE_RESEAL_TO_OOBE and _AUDIT: bound to one machine, not finished; UNDEPLOYABLE
    return Verdict.HALF_WAY


def _software(hive: Hive) -> Iterator[Clue]:
    state = registry.text(hive, IMAGE_STATE, "ImageState")
    yield _clue("SOFTWARE\\..\\Setup\\State\\ImageState", state, _image_state(state), Weight.STRONG)
    guid = registry.text(hive, "Microsoft\\Cryptography", "MachineGuid")
    says = Verdict.SPECIALIZED if guid else Verdict.GENERALIZED
    yield _clue("SOFTWARE\\..\\Cryptography\\MachineGuid", guid, says, Weight.SUPPORTING)
    client = registry.text(hive, UPDATE, "SusClientId")
    says_client = Verdict.SPECIALIZED if client else None
    yield _clue("SOFTWARE\\..\\WindowsUpdate\\SusClientId", client, says_client, Weight.SUPPORTING)
    if registry.number(hive, PROTECTION, "SkipRearm"):
        yield _clue("SOFTWARE\\..\\SoftwareProtectionPlatform\\SkipRearm", "1", None, Weight.NOTE)


def _system(hive: Hive) -> Iterator[Clue]:
    yield from _setup(hive)
    state = registry.number(hive, STATUS, "GeneralizationState")
    # 7 is what a finished Sysprep leaves, and what scripts and installers set: it says nothing
    died = state is not None and state in DIED
    says = Verdict.HALF_WAY if died else None
    weight = Weight.STRONG if died else Weight.NOTE
    yield _clue(f"SYSTEM\\{STATUS}\\GeneralizationState", state, says, weight)
    letters = len(hive.values("MountedDevices"))
    says = None if letters else Verdict.GENERALIZED
    yield _clue("SYSTEM\\MountedDevices", f"{letters} values", says, Weight.SUPPORTING)
    current = registry.control_set(hive)
    name = registry.text(hive, f"{current}\\Control\\ComputerName\\ComputerName", "ComputerName")
    yield _clue(f"SYSTEM\\{current}\\..\\ComputerName", name, None, Weight.NOTE)
    for path in registry.paging_files(hive):
        yield _clue(f"SYSTEM\\{current}\\..\\PagingFiles", path, None, Weight.NOTE)
    interfaces = f"{current}\\Services\\Tcpip\\Parameters\\Interfaces"
    for interface in hive.keys(interfaces):
        key = f"{interfaces}\\{interface}"
        static = [a for a in registry.texts(hive, key, "IPAddress") if a != "0.0.0.0"]  # noqa: S104
        if static:
            where = f"SYSTEM\\{current}\\..\\Interfaces\\{shown(interface)}\\IPAddress"
            yield _clue(where, f"static {', '.join(static)}", None, Weight.NOTE)


def _setup(hive: Hive) -> Iterator[Clue]:
    """Whether the next boot goes on with Setup (oobe\\windeploy.exe) or to the logon."""
    kind = registry.number(hive, "Setup", "SetupType")
    line = registry.text(hive, "Setup", "CmdLine") or ""
    says = None
    if kind == 0 or HOOK in line.lower():
        says = Verdict.SPECIALIZED
    elif kind and "windeploy" in line.lower():
        says = Verdict.GENERALIZED
    yield _clue("SYSTEM\\Setup\\SetupType", kind, says, Weight.STRONG)
    yield _clue("SYSTEM\\Setup\\CmdLine", line or None, None, Weight.NOTE)
    for name in ("SystemSetupInProgress", "OOBEInProgress"):
        value = registry.number(hive, "Setup", name)
        says = Verdict.GENERALIZED if value else Verdict.SPECIALIZED
        yield _clue(f"SYSTEM\\Setup\\{name}", value, says, Weight.SUPPORTING)
    clone = registry.texts(hive, "Setup", "CloneTag")
    says = Verdict.GENERALIZED if clone else None
    yield _clue("SYSTEM\\Setup\\CloneTag", " ".join(clone) or None, says, Weight.SUPPORTING)


def _files(tree: Tree, clues: Sequence[Clue]) -> Iterator[Clue]:
    state = _ini(tree.text(STATE_INI), "ImageState")
    yield _clue(STATE_INI, state, _image_state(state), Weight.STRONG)
    if tree.at(TAG):
        # a machine that was deployed from a generalized image may still have it
        claimed = any(
            clue.where.endswith("ImageState") and clue.says is Verdict.GENERALIZED for clue in clues
        )
        weight = Weight.STRONG if claimed else Weight.SUPPORTING
        yield _clue(TAG, "present", Verdict.GENERALIZED, weight)
    else:
        yield _clue(TAG, None, Verdict.SPECIALIZED, Weight.STRONG)
    if CREATED_TAG in tree.text(ACTIONS, limit=16 << 20):
        yield _clue(ACTIONS, CREATED_TAG, Verdict.GENERALIZED, Weight.SUPPORTING)


def _ini(content: str, name: str) -> str | None:
    for line in content.splitlines():
        key, separator, value = line.partition("=")
        if separator and key.strip().lower() == name.lower():
            return value.strip()
    return None


def _clue(where: str, value: str | int | None, says: Verdict | None, weight: Weight) -> Clue:
    return Clue(where, "absent" if value is None else shown(str(value)), says, weight)
