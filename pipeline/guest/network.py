"""Network state of a Linux guest: leases, addresses bound to one network card, names."""

import re
from collections.abc import Sequence

from pipeline.guest import units
from pipeline.guest.accounts import change_lines
from pipeline.guest.operations import Context, Editor, Operation

MAC = re.compile(r"(?i)\b(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}\b")
HOSTNAME = "localhost"
ONE_NAME = re.compile(r"(\s*+#.*\n)*+\s*+[\w.-]*+\s*+")  # hostname(5); never tried twice

# contents of directories in which DHCP clients keep leases and nothing else
LEASE_DIRECTORIES = (
    "/var/lib/dhclient",
    "/var/lib/dhcp",
    "/var/lib/dhcpcd",
    "/var/lib/dhcpcd5",
    "/var/lib/dhcpv6",
    "/var/lib/systemd/network",
    "/var/lib/connman",
)
LEASES = (
    "/var/db/dhclient.leases.*",
    "/var/db/dhcpcd/*",
    "/etc/dhcpcd.duid",
    "/etc/dhcpcd.secret",
    "/var/lib/NetworkManager/*.lease",
    "/var/lib/NetworkManager/secret_key",
    "/var/lib/NetworkManager/seen-bssids",
    "/var/lib/NetworkManager/timestamps",
    "/var/lib/wicked/*.xml",
    "/var/lib/udhcpc/*",
    "/var/lib/dhcpd/*.leases~",
    "/var/lib/iwd/*.psk",
    "/etc/wpa_supplicant/wpa_supplicant-*.conf",
)
SERVED = "/var/lib/dhcpd/*.leases"
# files that name the cards of one machine: removed when they do
NETPLAN = "/etc/netplan/*.yaml"
BOUND = (
    NETPLAN,
    "/etc/systemd/network/*.network",
    "/etc/systemd/network/*.link",
    "/etc/NetworkManager/system-connections/*",
    "/etc/network/interfaces.d/*",
    "/etc/sysconfig/network-scripts/ifcfg-*",
    "/etc/sysconfig/network/ifcfg-*",
)
PASSWORDS = ("psk", "password", "private-key-password", "leap-password", "secret", "wep-key0")
ALWAYS_BOUND = (
    "/etc/udev/rules.d/70-persistent-net.rules",
    "/etc/udev/rules.d/70-persistent-cd.rules",
    "/etc/udev/rules.d/75-persistent-net.rules",
)
CLOUD_INIT = ("/usr/bin/cloud-init", "/usr/local/bin/cloud-init")
CLOUD_CONFIGURATION = ("/etc/cloud/cloud.cfg", "/etc/cloud/cloud.cfg.d/*.cfg")
# what installers leave that keeps cloud-init from the network; it goes (clouds.py)
INSTALLERS = ("/etc/cloud/cloud.cfg.d/subiquity-disable-cloudinit-networking.cfg",)
NO_NETWORK = re.compile(
    r"(?m)^network\s*:\s*(?:\{[^}\n]*|(?:#.*)?(?:\n[ \t].*)*?\n[ \t]+)config\s*:\s*[\"']?disabled"
)
MASKED = ("cloud-init.service", "cloud-init-local.service", "cloud-init.target")
KERNEL_ARGUMENTS = ("/etc/default/grub", "/etc/kernel/cmdline", "/boot/loader/entries/*.conf")
# no connection of its own for a card that no profile is for (NetworkManager.conf(5))
NO_DEFAULT = re.compile(r"(?m)^\s*no-auto-default\s*=\s*\S")

NETWORKD_DHCP = """\
# Written by galleria when this image was generalized, in place of a file bound to one card.
[Match]
Type=ether

[Network]
DHCP=yes
"""
NETPLAN_DHCP = """\
# Written by galleria when this image was generalized, in place of a file bound to one card.
network:
  version: 2
  ethernets:
    any-ethernet:
      match:
        name: "e*"
      dhcp4: true
      dhcp6: true
"""


INTERFACES_DHCP = """\
# Written by galleria when this image was generalized, in place of a file bound to one card.
auto /e*=ethernet
iface ethernet inet dhcp
"""
PROFILE_DHCP = """\
# Written by galleria when this image was generalized, in place of a file bound to one card.
[connection]
id=galleria-dhcp
type=ethernet
multi-connect=3

[ipv4]
method=auto

[ipv6]
method=auto
"""


def remove_leases(edit: Editor, _: Context) -> None:
    for directory in LEASE_DIRECTORIES:
        edit.remove_files(directory)
    edit.remove_all(*LEASES)
    for path in edit.guest.glob(SERVED):  # without its file dhcpd does not start
        edit.truncate(path)


def remove_network_state(edit: Editor, _: Context) -> None:
    edit.remove_all(*ALWAYS_BOUND)
    removed = []
    for pattern in BOUND:
        for path in edit.guest.glob(pattern):
            if "/ifcfg-" in path:
                change_lines(edit, path, _free_of_card)
            elif _names_one_place(path, edit.text(path)):
                edit.remove(path)
                removed.append(path)
    change_lines(edit, "/etc/network/interfaces", _free_of_card)
    if not written_at_first_boot(edit):
        keep_reachable(edit, removed)


def written_at_first_boot(edit: Editor) -> bool:
    """Whether cloud-init is there, starts, and configures the network of a clone."""
    if not any(edit.exists(path) for path in CLOUD_INIT):
        return False
    if edit.exists("/etc/cloud/cloud-init.disabled"):
        return False
    if any(edit.follow(f"/etc/systemd/system/{unit}") == "/dev/null" for unit in MASKED):
        return False
    for pattern in KERNEL_ARGUMENTS:
        if any("cloud-init=disabled" in edit.text(path) for path in edit.guest.glob(pattern)):
            return False
    return not any(
        NO_NETWORK.search(edit.text(path))
        for pattern in CLOUD_CONFIGURATION
        for path in edit.guest.glob(pattern)
        if path not in INSTALLERS
    )


def _names_one_place(path: str, text: str) -> bool:
    """Bound to a network card, or to a network by its password (NetworkManager's keyfiles)."""
    if MAC.search(text):
        return True
    words = (line.partition("=")[0].strip() for line in text.splitlines())
    return "/NetworkManager/" in path and any(word in PASSWORDS for word in words)


def _free_of_card(line: str) -> str | None:
    """ifcfg-* and interfaces(5): the card's address goes, the settings stay."""
    words = line.strip().lower().replace("=", " ").split()
    return None if words[:1] and words[0] in ("hwaddr", "hwaddress", "uuid") else line


def keep_reachable(edit: Editor, removed: Sequence[str]) -> None:
    """Where nothing writes new network files, DHCP by the guest's own network stack takes the place
    of those removed."""
    if any(path.endswith(".network") for path in removed):
        edit.write_text("/etc/systemd/network/80-galleria-dhcp.network", NETWORKD_DHCP)
    if any(path.startswith("/etc/netplan/") for path in removed):
        edit.write_text("/etc/netplan/80-galleria-dhcp.yaml", NETPLAN_DHCP, mode=0o600)
    if any(path.startswith("/etc/network/interfaces.d/") for path in removed):
        edit.write_text("/etc/network/interfaces.d/80-galleria-dhcp", INTERFACES_DHCP)
    manager = "/etc/NetworkManager"
    if any(path.startswith(f"{manager}/system-connections/") for path in removed):
        files = [f"{manager}/NetworkManager.conf"]
        for directory in (manager, "/usr/lib/NetworkManager"):
            files += edit.guest.glob(f"{directory}/conf.d/*.conf")
        if any(NO_DEFAULT.search(edit.text(path)) for path in files):
            profile = f"{manager}/system-connections/80-galleria-dhcp.nmconnection"
            edit.write_text(profile, PROFILE_DHCP, mode=0o600)


def reset_hostname(edit: Editor, context: Context) -> None:
    names = {context.facts.hostname, edit.text("/etc/hostname").strip()}
    names |= {name.partition(".")[0] for name in names}
    names -= {"", "localhost", "localhost.localdomain", "unknown"}
    for path in ("/etc/hostname", "/etc/HOSTNAME"):
        if edit.exists(path) and edit.text(path).strip() != "localhost.localdomain":
            edit.write_value(path, f"{HOSTNAME}\n", ONE_NAME)
    if edit.text("/etc/mailname").strip():
        edit.write_value("/etc/mailname", f"{HOSTNAME}\n", ONE_NAME)
    change_lines(
        edit, "/etc/sysconfig/network", lambda line: None if line.startswith("HOSTNAME=") else line
    )
    change_lines(edit, "/etc/hosts", lambda line: _without_names(line, names))


def _without_names(line: str, names: set[str]) -> str | None:
    """A line of hosts(5) without the machine's own names; None when no name is left."""
    entry, mark, comment = line.partition("#")
    words = entry.split()
    kept = [word for word in words[1:] if word not in names and word.partition(".")[0] not in names]
    if len(words) < 2 or len(kept) == len(words) - 1:
        return line
    return " ".join([words[0], *kept]) + (f" {mark}{comment}" if mark else "") if kept else None


# programs that write /etc/resolv.conf by what DHCP says; those of a stack that may not be in use
WRITERS = (
    *("/usr/sbin/NetworkManager", "/usr/bin/NetworkManager", "/sbin/resolvconf"),
    *("/usr/sbin/resolvconf", "/usr/bin/resolvconf", "/usr/sbin/wicked", "/usr/sbin/connmand"),
    *("/usr/share/udhcpc/default.script", "/etc/udhcpc/udhcpc.conf"),
)
CLIENTS = (
    *("/sbin/dhclient", "/usr/sbin/dhclient", "/usr/bin/dhclient", "/sbin/dhcpcd"),
    *("/usr/sbin/dhcpcd", "/usr/bin/dhcpcd", "/usr/sbin/udhcpc", "/sbin/udhcpc"),
)
USERS_OF_CLIENTS = ("networking.service", "network.service", "dhcpcd.service", "dhclient@.service")
STUB = "/run/systemd/resolve/stub-resolv.conf"


def reset_resolver(edit: Editor, _: Context) -> None:
    """A link belongs to systemd-resolved or resolvconf, and leads to /run. A file was written by
    some DHCP client, and is written again by it; where nothing would, systemd-resolved takes its
    place, or it stays."""
    path = "/etc/resolv.conf"
    if edit.is_file(path) and edit.text(path).strip() and not _writes_resolver(edit):
        if units.is_enabled(edit, "systemd-resolved.service"):
            edit.remove(path)
            edit.symlink(STUB, path)
    else:
        edit.truncate(path)
    edit.remove_all("/etc/resolvconf/resolv.conf.d/original", "/etc/resolvconf/resolv.conf.d/tail")


def _writes_resolver(edit: Editor) -> bool:
    """Whether something of the guest writes it. Of a guest whose network is not known at all, that
    is taken for granted."""
    networkd = units.is_enabled(edit, "systemd-networkd.service")
    by_lists = any(
        (networkd, edit.text("/etc/network/interfaces").strip(), edit.guest.glob(NETPLAN))
    )
    if not by_lists or any(edit.exists(path) for path in WRITERS):
        return True
    has_client = any(edit.exists(path) for path in CLIENTS)
    return has_client and (not networkd or units.is_enabled(edit, *USERS_OF_CLIENTS))


OPERATIONS = (
    Operation(
        "dhcp-leases",
        "Remove the leases and identities of all DHCP clients, empty those of servers",
        "A clone that asks with the same identity gets the same address.",
        remove_leases,
        paths=(*(f"{name}/**" for name in LEASE_DIRECTORIES), *LEASES, SERVED),
    ),
    Operation(
        "network-state",
        "Remove network configuration that is bound to one network card",
        "A clone has another card: it would come up without a network.",
        remove_network_state,
        paths=(*ALWAYS_BOUND, *BOUND, "/etc/network/interfaces"),
    ),
    Operation(
        "hostname",
        "Reset the host name to localhost, also in /etc/hosts",
        "Each machine gets its own, from its cloud, from DHCP or from its owner.",
        reset_hostname,
        paths=(
            "/etc/hostname",
            "/etc/HOSTNAME",
            "/etc/mailname",
            "/etc/hosts",
            "/etc/sysconfig/network",
        ),
    ),
    Operation(
        "resolver",
        "Empty /etc/resolv.conf where a DHCP client writes it again",
        "Name servers belong to the network in which the image was made.",
        reset_resolver,
        paths=("/etc/resolv.conf", "/etc/resolvconf/resolv.conf.d"),
    ),
)
