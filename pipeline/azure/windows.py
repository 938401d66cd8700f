"""Checks in a Windows guest's registry. From Microsoft's page; no real Windows was looked at."""

from collections.abc import Iterator, Mapping

from pipeline.errors import Refused
from pipeline.guest.findings import Finding, Severity, verdict
from pipeline.guest.windows import registry
from pipeline.guest.windows.tree import Tree, shown
from pipeline.ports import Guest, GuestFacts
from pipeline.ports.hives import Hive

# Start of a service (winsvc.h): 0 boot, 1 system, 2 automatic, 3 on demand, 4 disabled
BOOT, SYSTEM, AUTOMATIC, DEMAND, DISABLED = 0, 1, 2, 3, 4
STARTS: Mapping[str, tuple[int, Severity]] = {
    "cdrom": (SYSTEM, Severity.FAIL),
    "vmbus": (BOOT, Severity.FAIL),
    "storvsc": (BOOT, Severity.FAIL),
    "BFE": (AUTOMATIC, Severity.WARN),
    "Dhcp": (AUTOMATIC, Severity.FAIL),
    "Dnscache": (AUTOMATIC, Severity.WARN),
    "IKEEXT": (AUTOMATIC, Severity.WARN),
    "iphlpsvc": (AUTOMATIC, Severity.WARN),
    "mpssvc": (AUTOMATIC, Severity.WARN),
    "Netlogon": (DEMAND, Severity.WARN),
    "Netman": (DEMAND, Severity.WARN),
    "nsi": (AUTOMATIC, Severity.WARN),
    "TermService": (AUTOMATIC, Severity.FAIL),
    "RemoteRegistry": (AUTOMATIC, Severity.WARN),
}
RDP = "Control\\Terminal Server"
TCP = f"{RDP}\\WinStations\\RDP-Tcp"
ENVIRONMENT = "Control\\Session Manager\\Environment"
TEMPORARY = "%systemroot%\\temp"
PROXY = "Microsoft\\Windows\\CurrentVersion\\Internet Settings\\Connections"
ONLINE_ALL = 1  # SAN policy
DIRECT = 1  # the flags, at byte 8 of WinHttpSettings


def windows_findings(guest: Guest, facts: GuestFacts) -> Iterator[Finding]:
    tree = Tree(guest)
    wide = facts.architecture == "x86_64"
    yield Finding("64 bits", Severity.FAIL, wide, facts.architecture)
    locked = [device for device, kind in facts.filesystems if kind == "BitLocker"]
    yield verdict("BitLocker off", Severity.FAIL, locked, "decrypt it first")
    panther = tree.at("/Windows/Panther")
    full = panther is not None and bool(guest.names(panther))
    yield verdict(
        "no Panther directory",
        Severity.WARN,
        [panther or ""] if full else [],
        "remove it: Sysprep may fail with it (galleria generalize does)",
    )
    if facts.generation == "V2":
        said = "the EFI system partition of a Windows is not looked into"
        yield Finding("UEFI boot loader", Severity.FAIL, None, said)
    said = "the boot configuration (BCD) is not read by this check"
    yield Finding("serial console (EMS)", Severity.INFO, None, said)
    for name, read in (("SYSTEM", _system), ("SOFTWARE", _software)):
        path = registry.hive_path(tree, name)
        if path is None:
            yield Finding(f"registry {name}", Severity.FAIL, None, "the hive is not there")
            continue
        try:
            with guest.hive(path) as hive:
                yield from list(read(hive))
        except Refused as error:
            yield Finding(f"registry {name}", Severity.FAIL, None, error.message)


def _system(hive: Hive) -> Iterator[Finding]:
    current = registry.control_set(hive)
    for service, (wanted, severity) in STARTS.items():
        start = registry.number(hive, f"{current}\\Services\\{service}", "Start")
        said = "absent" if start is None else f"Start={start}"
        fix = f"set Services\\{service}\\Start to {wanted}"
        yield Finding(
            f"service {service}", severity, start == wanted, said, fix * (start != wanted)
        )
    card = registry.number(hive, f"{current}\\Services\\netvsc", "Start")
    yield Finding(
        "network driver",
        Severity.FAIL,
        card is not None and card != DISABLED,
        "netvsc is absent" if card is None else f"netvsc has Start={card}",
        "" if card is not None and card != DISABLED else "Windows has netvsc built in: enable it",
    )
    denied = registry.number(hive, f"{current}\\{RDP}", "fDenyTSConnections")
    port = registry.number(hive, f"{current}\\{TCP}", "PortNumber")
    on = denied == 0 and port in (None, 3389)
    said = f"fDenyTSConnections={denied}, port {port or 3389}"
    yield Finding("remote desktop", Severity.FAIL, on, said, "" if on else "enable it on port 3389")
    bound = hive.get(f"{current}\\{TCP}", "SSLCertificateSHA1Hash") is not None
    yield verdict(
        "no certificate bound to remote desktop",
        Severity.WARN,
        ["SSLCertificateSHA1Hash is set"] if bound else [],
        "remove it: the certificate is the old machine's",
    )
    utc = registry.number(hive, f"{current}\\Control\\TimeZoneInformation", "RealTimeIsUniversal")
    fix = "set RealTimeIsUniversal to 1: Azure's clocks are UTC"
    yield Finding("clock in UTC", Severity.WARN, utc == 1, str(utc), fix * (utc != 1))
    policy = registry.number(hive, f"{current}\\Services\\partmgr\\Parameters", "SanPolicy")
    yield Finding(
        "disks come online",
        Severity.WARN,
        policy == ONLINE_ALL,
        f"SanPolicy={policy}",
        "diskpart: san policy=onlineall" * (policy != ONLINE_ALL),
    )
    routes = hive.values(f"{current}\\Services\\Tcpip\\Parameters\\PersistentRoutes")
    yield verdict(
        "no static routes", Severity.WARN, map(shown, routes), "route delete; Azure has its own"
    )
    for name in ("TEMP", "TMP"):
        place = registry.text(hive, f"{current}\\{ENVIRONMENT}", name) or ""
        usual = place.lower() == TEMPORARY
        fix = f"set it to {TEMPORARY}" * (not usual)
        yield Finding(f"{name} is the default", Severity.WARN, usual, shown(place) or "absent", fix)


def _software(hive: Hive) -> Iterator[Finding]:
    proxy = hive.get(PROXY, "WinHttpSettings")
    on = proxy is not None and len(proxy.data) > 8 and proxy.data[8] != DIRECT
    yield verdict(
        "no WinHTTP proxy",
        Severity.WARN,
        ["WinHttpSettings names one"] if on else [],
        "netsh winhttp reset proxy",
    )
