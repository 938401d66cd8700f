"""What may be taken out of a Windows guest offline: files that Windows makes again, and values that
it fetches again. Never its SID, the SAM, keys, device database or drive letters: those only Sysprep
can reset, in the running guest.
"""

from collections.abc import Iterator

from pipeline.errors import StageFailed
from pipeline.guest.operations import Action, Context, Editor, Operation
from pipeline.guest.windows import arm, obstacles, registry, unattend
from pipeline.guest.windows.tree import Tree, is_file
from pipeline.ports.hives import Hive

FAMILY = ("windows",)
PAGING = ("/pagefile.sys", "/swapfile.sys")
EVENT_LOGS = ("/Windows/System32/winevt/Logs/*.evtx",)
LOGS = (
    "/Windows/Logs/CBS/*",
    "/Windows/Logs/DISM/*",
    "/Windows/Logs/WindowsUpdate/*",
    "/Windows/INF/setupapi*.log",
    "/Windows/debug/*.log",
    "/Windows/SoftwareDistribution/ReportingEvents.log",
)
TEMPORARY = ("/Windows/Temp/*", "/Users/*/AppData/Local/Temp/*", "/Temp/*")
DUMPS = (
    "/Windows/MEMORY.DMP",
    "/Windows/Minidump/*",
    "/Windows/LiveKernelReports/*",
    "/Users/*/AppData/Local/CrashDumps/*",
    "/ProgramData/Microsoft/Windows/WER/ReportArchive/*",
    "/ProgramData/Microsoft/Windows/WER/ReportQueue/*",
)
# the agent itself and the extensions' programs lie beside them, and stay
AGENT = (
    "/WindowsAzure/Logs/*",
    "/WindowsAzure/Config/*",
    "/WindowsAzure/CollectGuestLogsTemp/*",
    "/Packages/Plugins/*/*/Status/*",
    "/Packages/Plugins/*/*/RuntimeSettings/*",
    "/Packages/Plugins/*/*/Downloads/*",
)
UPDATE_KEY = "Microsoft\\Windows\\CurrentVersion\\WindowsUpdate"
UPDATE_VALUES = ("SusClientId", "SusClientIdValidation", "PingID", "AccountDomainSid")
NETWORK_VALUES = ("dhcp", "lease")  # how the names of a lease's values begin
NETWORK_TIMES = ("t1", "t2")


def remove_paging(edit: Editor, context: Context) -> None:
    tree = Tree(edit.guest)
    for found in obstacles.hibernated(tree):
        raise StageFailed(found.what, hint=found.hint)
    _remove(edit, *PAGING, "/hiberfil.sys")
    for named in context.paging:
        path = tree.at(named)
        if path is not None and is_file(edit.guest, path):
            edit.remove(path)


def remove_event_logs(edit: Editor, _: Context) -> None:
    _remove(edit, *EVENT_LOGS)


def remove_logs(edit: Editor, _: Context) -> None:
    _remove(edit, *LOGS)


def remove_setup_logs(edit: Editor, _: Context) -> None:
    """All of Panther but the answer files: the next boot reads them."""
    tree = Tree(edit.guest)
    kept = set(unattend.answer_files(tree))
    for directory in tree.matching("/Windows/Panther"):
        for path, found in edit.guest.find(directory):
            if found.kind != "directory" and path not in kept:
                edit.remove(path)


def remove_temporary(edit: Editor, _: Context) -> None:
    _remove(edit, *TEMPORARY)


def remove_dumps(edit: Editor, _: Context) -> None:
    _remove(edit, *DUMPS)


def remove_prefetch(edit: Editor, _: Context) -> None:
    _remove(edit, "/Windows/Prefetch/*")


def remove_downloads(edit: Editor, _: Context) -> None:
    _remove(edit, "/Windows/SoftwareDistribution/Download/*")


def remove_recycled(edit: Editor, _: Context) -> None:
    _remove(edit, "/$Recycle.Bin/*")


def remove_agent_state(edit: Editor, _: Context) -> None:
    _remove(edit, *AGENT)


def remove_update_identity(edit: Editor, _: Context) -> None:
    path = registry.hive_path(Tree(edit.guest), "SOFTWARE")
    if path is not None:
        with edit.guest.hive(path, writable=True) as hive:
            for name in UPDATE_VALUES:
                _delete(edit, path, hive, UPDATE_KEY, name)


def remove_leases(edit: Editor, _: Context) -> None:
    """In every control set: the last known good one may be booted, too."""
    path = registry.hive_path(Tree(edit.guest), "SYSTEM")
    if path is None:
        return
    with edit.guest.hive(path, writable=True) as hive:
        for key in _network_keys(hive):
            for name in hive.values(key):
                if name.lower().startswith(NETWORK_VALUES) or name.lower() in NETWORK_TIMES:
                    _delete(edit, path, hive, key, name)


def remove_answers(edit: Editor, _: Context) -> None:
    tree = Tree(edit.guest)
    for path in unattend.with_passwords(tree):
        edit.remove(path)
    software = registry.hive_path(tree, "SOFTWARE")
    if software is not None:
        with edit.guest.hive(software, writable=True) as hive:
            _delete(edit, software, hive, unattend.WINLOGON, unattend.AUTO_LOGON)


def remove_hook(edit: Editor, _: Context) -> None:
    """What arming put there: of no use once Sysprep has run."""
    _remove(edit, arm.DIRECTORY)


def _network_keys(hive: Hive) -> Iterator[str]:
    for name in hive.keys(""):
        if name.lower().startswith("controlset"):
            for family in ("Tcpip", "Tcpip6"):
                parameters = f"{name}\\Services\\{family}\\Parameters"
                yield parameters
                for interface in hive.keys(f"{parameters}\\Interfaces"):
                    yield f"{parameters}\\Interfaces\\{interface}"


def _remove(edit: Editor, *patterns: str) -> None:
    tree = Tree(edit.guest)
    for pattern in patterns:
        for path in tree.matching(pattern):
            edit.remove(path)


def _delete(edit: Editor, path: str, hive: Hive, key: str, name: str) -> None:
    if hive.get(key, name) is not None:
        hive.delete(key, name)
        edit.record(Action.REMOVED, f"{path}:{key}\\{name}")


OPERATIONS = (
    Operation(
        "windows-paging",
        "Remove paging files (those that the registry names, on every volume), swapfile.sys and an "
        "unused hiberfil.sys",
        "They hold memory: passwords, keys, what was on the screen. Windows makes them again.",
        remove_paging,
        families=FAMILY,
        every_volume=True,
    ),
    Operation(
        "windows-event-logs",
        "Remove event logs",
        "They name the machine, its people and its network. Windows makes them again.",
        remove_event_logs,
        families=FAMILY,
    ),
    Operation(
        "windows-setup-logs",
        "Remove Setup's logs in Panther; its answer files stay",
        "They describe one machine, and Sysprep's documentation wants them gone.",
        remove_setup_logs,
        families=FAMILY,
    ),
    Operation(
        "windows-logs",
        "Remove the logs of servicing, of drivers' installation and of updates",
        "They describe one machine, and are large.",
        remove_logs,
        families=FAMILY,
    ),
    Operation(
        "windows-temporary-files",
        "Remove temporary files of the system and of people",
        "Installers leave passwords in them.",
        remove_temporary,
        families=FAMILY,
    ),
    Operation(
        "windows-crash-dumps",
        "Remove dumps of memory and error reports",
        "They hold memory: passwords and keys.",
        remove_dumps,
        families=FAMILY,
    ),
    Operation(
        "windows-prefetch",
        "Remove prefetch traces",
        "They tell which programs were run, and fit one disk.",
        remove_prefetch,
        families=FAMILY,
    ),
    Operation(
        "windows-update-downloads",
        "Remove downloaded updates",
        "They are large, and downloaded again when needed.",
        remove_downloads,
        families=FAMILY,
    ),
    Operation(
        "windows-recycle-bin",
        "Empty the recycle bins of every volume",
        "They hold what people wanted to be gone.",
        remove_recycled,
        families=FAMILY,
        every_volume=True,
    ),
    Operation(
        "windows-update-identity",
        "Remove the identity that the machine has at its update server (SusClientId)",
        "Machines with the same one are one machine to WSUS: they hide each other.",
        remove_update_identity,
        families=FAMILY,
    ),
    Operation(
        "windows-dhcp-values",
        "Remove what DHCP gave: addresses, servers, leases",
        "A clone would ask for the addresses of another machine.",
        remove_leases,
        families=FAMILY,
    ),
    Operation(
        "windows-azure-agent",
        "Remove the Azure agent's logs and state, and the settings of its extensions",
        "They hold protected settings and the identity of one machine. The agent stays.",
        remove_agent_state,
        families=FAMILY,
    ),
    Operation(
        "windows-sysprep-hook",
        "Remove what --arm-sysprep put into the guest",
        "It has done its work, and its answer file may hold passwords.",
        remove_hook,
        families=FAMILY,
    ),
    Operation(
        unattend.OPERATION,
        "Remove the answer files that hold passwords, and the one of an automatic logon",
        "Whoever has the image can read them. Not by default: the first boot may need them.",
        remove_answers,
        default=False,
        families=FAMILY,
    ),
)
