"""Services that know one machine: domains, subscriptions, agents, and keys of servers.

Each list is the whole of its operation: `DIRECTORY/**` is every file below, the directories kept;
`DIRECTORY/*` all that is in it; anything else a path or pattern.
"""

from collections.abc import Callable, Sequence

from pipeline.guest import agents
from pipeline.guest.agents import remove_paths
from pipeline.guest.operations import Context, Editor, Operation

DOMAIN = (
    "/etc/krb5.keytab",
    "/var/lib/samba/secrets.tdb",
    "/var/lib/samba/private/*.tdb",
    "/var/lib/sss/db/**",
    "/var/lib/sss/mc/**",
    "/var/lib/sss/secrets/**",
    "/var/lib/sss/pubconf/**",
    "/var/lib/sss/pipes/private/**",
    "/etc/ipa/ca.crt",
    "/etc/ipa/default.conf",
    "/var/lib/ipa-client/sysrestore/*",
    "/var/lib/ipa-client/pki/*",
    "/var/lib/certmonger/requests/*",
    "/etc/opt/quest/vas/host.keytab",
)
SUBSCRIPTIONS = (
    "/etc/pki/consumer/*.pem",
    "/etc/pki/entitlement/*.pem",
    "/etc/sysconfig/rhn/systemid",
    "/etc/sysconfig/rhn/osad-auth.conf",
    "/etc/insights-client/machine-id",
    "/var/lib/rhsm/*",
    "/var/lib/yum/uuid",
    "/var/lib/dnf/repos/*/countme",
    "/etc/sysconfig/hw-uuid",
    "/etc/zypp/credentials.d/*",
    "/etc/SUSEConnect",
    "/var/lib/zypp/AnonymousUniqueId",
    "/var/lib/ubuntu-advantage/private/*",
    "/etc/apt/auth.conf.d/90ubuntu-advantage",
    "/etc/apt/auth.conf.d/*ubuntu-pro*",
    "/etc/apt/sources.list.d/ubuntu-esm-*",
    "/var/lib/whoopsie/whoopsie-id",
)
MAIL_SERVERS = ("/var/lib/dovecot/*",)
RPM = ("/var/lib/rpm/__db.*", "/usr/lib/sysimage/rpm/__db.*")
BACKUPS = tuple(
    f"{directory}/{pattern}"
    for directory in ("/etc", "/etc/*", "/root", "/srv")
    for pattern in ("*~", "*.bak", "*.swp", ".*.swp", "*.dpkg-old", "*.rpmsave", "*.ucf-old")
)
FIREWALL = (
    "/etc/sysconfig/iptables",
    "/etc/sysconfig/ip6tables",
    "/etc/iptables/rules.v4",
    "/etc/iptables/rules.v6",
    "/etc/firewalld/zones/*",
    "/etc/firewalld/services/*",
)
TLS_KEYS = (
    "/etc/pki/tls/private/*.key",
    "/etc/pki/tls/certs/localhost.crt",
    "/etc/ssl/private/*.key",
    "/etc/letsencrypt/*",
    "/etc/cockpit/ws-certs.d/*",
)
KERBEROS_SERVER = ("/var/kerberos/krb5kdc/*", "/var/lib/krb5kdc/*")
WIREGUARD = ("/etc/wireguard/*",)


def removing(paths: Sequence[str]) -> Callable[[Editor, Context], None]:
    """An operation that removes what a list names."""

    def perform(edit: Editor, _: Context) -> None:
        remove_paths(edit, paths)

    return perform


def _listed(
    name: str,
    heading: str,
    why: str,
    paths: tuple[str, ...],
    *,
    default: bool = True,
    families: tuple[str, ...] = ("linux",),
) -> Operation:
    return Operation(name, heading, why, removing(paths), default, families, paths)


OPERATIONS = (
    _listed(
        "domain",
        "Remove Kerberos, SSSD, Samba and IPA machine secrets",
        "A clone that uses the machine account of another breaks both.",
        DOMAIN,
    ),
    _listed(
        "subscriptions",
        "Remove registrations with RHN, RHSM, SUSE, Ubuntu Pro and usage counters",
        "Each machine is registered by itself.",
        SUBSCRIPTIONS,
    ),
    *agents.OPERATIONS,
    _listed(
        "mail-server-state",
        "Remove Dovecot's state",
        "Its instance list and parameters belong to one server.",
        MAIL_SERVERS,
    ),
    _listed(
        "rpm-locks",
        "Remove the Berkeley database environment beside the RPM database",
        "A stale one makes rpm fail or wait; it is made again.",
        RPM,
        families=("redhat", "suse"),
    ),
    _listed(
        "backup-files",
        "Remove what editors and package managers keep of replaced configuration",
        "They may hold old secrets; but something wanted may be called .bak too.",
        BACKUPS,
        default=False,
    ),
    _listed(
        "firewall-rules",
        "Remove saved firewall rules",
        "Wanted in most images, so not by default.",
        FIREWALL,
        default=False,
    ),
    _listed(
        "tls-keys",
        "Remove TLS private keys of the machine's services",
        "Services that name them do not start without, so not by default.",
        TLS_KEYS,
        default=False,
    ),
    _listed(
        "kerberos-server",
        "Remove the database of a Kerberos server",
        "It is what such a server is for, so not by default.",
        KERBEROS_SERVER,
        default=False,
    ),
    _listed(
        "wireguard",
        "Remove WireGuard's tunnels and their keys",
        "Two machines with one key take each other's packets; an image may want it all the same.",
        WIREGUARD,
        default=False,
    ),
)
