"""Network state of a Linux guest: leases, addresses bound to one network card, names."""

import re

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
BOUND = (
    "/etc/netplan/*.yaml",
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
    cloud_init = any(edit.exists(path) for path in CLOUD_INIT)
    if not cloud_init or edit.exists("/etc/cloud/cloud-init.disabled"):
        _keep_reachable(edit, removed)


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


def _keep_reachable(edit: Editor, removed: list[str]) -> None:
    """Where cloud-init does not write new network files, DHCP takes the place of those removed."""
    if any(path.endswith(".network") for path in removed):
        edit.write_text("/etc/systemd/network/80-galleria-dhcp.network", NETWORKD_DHCP)
    if any(path.startswith("/etc/netplan/") for path in removed):
        edit.write_text("/etc/netplan/80-galleria-dhcp.yaml", NETPLAN_DHCP, mode=0o600)


def reset_hostname(edit: Editor, context: Context) -> None:
    names = {context.facts.hostname, edit.text("/etc/hostname").strip()}
    names |= {name.partition(".")[0] for name in names}
    names -= {"", "localhost", "unknown"}
    for path in ("/etc/hostname", "/etc/HOSTNAME"):
        if edit.exists(path):
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


def reset_resolver(edit: Editor, _: Context) -> None:
    """A link belongs to systemd-resolved or resolvconf, and leads to /run. A file was written by
    some DHCP client, and is written again by it."""
    edit.truncate("/etc/resolv.conf")
    edit.remove_all("/etc/resolvconf/resolv.conf.d/original", "/etc/resolvconf/resolv.conf.d/tail")


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
        "Empty /etc/resolv.conf where a DHCP client wrote it",
        "Name servers belong to the network in which the image was made.",
        reset_resolver,
        paths=("/etc/resolv.conf", "/etc/resolvconf/resolv.conf.d"),
    ),
)
