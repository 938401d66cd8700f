"""Agents that know one machine: monitoring, management, clusters, VPNs, build runners. Each has
state files by which its server tells machines apart: clones that share them are one machine to it.

A row is enough for another one; a user's file has the same rows (`parse_agents`):

    [[agent]]
    name = "ACME inventory"
    paths = ["/var/lib/acme/machine.id", "/etc/acme/keys/**"]

`DIRECTORY/**` is every file below, the directories kept; `DIRECTORY/*` all that is in it; anything
else a path or pattern.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import InvalidParameter
from pipeline.guest.accounts import change_lines
from pipeline.guest.operations import Context, Editor, Operation


@dataclass(frozen=True, slots=True)
class Agent:
    """One program, and where its identity is."""

    name: str
    paths: tuple[str, ...]


RUNNER = (".runner", ".credentials", ".credentials_rsaparams", ".agent")
K3S = tuple(f"/var/lib/rancher/{name}" for name in ("k3s", "rke2"))
AGENTS = (
    Agent("Salt", ("/etc/salt/minion_id", "/etc/salt/pki/minion/minion.p*")),
    Agent("Chef", ("/etc/chef/client.pem",)),
    Agent(
        "Puppet",
        (
            *(
                "/etc/puppetlabs/puppet/ssl/**",
                "/var/lib/puppet/ssl/**",
                "/var/lib/puppet/state/**",
            ),
            "/opt/puppetlabs/puppet/cache/state/**",
        ),
    ),
    Agent(
        "CFEngine", ("/var/cfengine/ppkeys/localhost.*", "/var/lib/cfengine3/ppkeys/localhost.*")
    ),
    Agent("Landscape", ("/var/lib/landscape/client/**",)),
    Agent(
        "OCS, GLPI, FusionInventory",
        (
            "/var/lib/ocsinventory-agent/**",
            "/var/lib/glpi-agent/**",
            "/var/lib/fusioninventory-agent/**",
        ),
    ),
    Agent("Docker", ("/etc/docker/key.json", "/var/lib/docker/engine-id")),
    Agent("Docker Swarm", ("/var/lib/docker/swarm/**",)),
    Agent(
        "Kubernetes",
        (
            *("/var/lib/kubelet/pki/*", "/etc/kubernetes/*.conf", "/etc/kubernetes/pki/**"),
            *(
                "/var/lib/etcd/**",
                "/var/lib/k0s/pki/**",
                "/var/snap/microk8s/current/credentials/*",
            ),
        ),
    ),
    Agent(
        "K3s, RKE2",
        (
            "/etc/rancher/node/password",
            *(f"{place}/agent/*.{kind}" for place in K3S for kind in ("key", "crt", "kubeconfig")),
            *(f"{place}/server/*token" for place in K3S),
            *(f"{place}/server/{name}/**" for place in K3S for name in ("cred", "db", "tls")),
        ),
    ),
    Agent(
        "Consul",
        (
            *("/opt/consul/node-id", "/opt/consul/serf/**", "/opt/consul/raft/**"),
            *("/var/lib/consul/node-id", "/var/lib/consul/serf/**", "/var/lib/consul/raft/**"),
        ),
    ),
    Agent(
        "Nomad",
        tuple(
            f"{place}/client/{name}"
            for place in ("/opt/nomad/data", "/opt/nomad", "/var/lib/nomad")
            for name in ("client-id", "secret-id")
        ),
    ),
    Agent("GlusterFS", ("/var/lib/glusterd/glusterd.info", "/var/lib/glusterd/peers/*")),
    Agent("Open vSwitch, OVN", ("/etc/openvswitch/system-id.conf",)),
    Agent("oVirt", ("/etc/vdsm/vdsm.id", "/etc/pki/vdsm/keys/*", "/etc/pki/vdsm/certs/*")),
    Agent("MySQL, MariaDB", ("/var/lib/mysql/auto.cnf", "/var/lib/mysql-files/auto.cnf")),
    Agent("RabbitMQ", ("/var/lib/rabbitmq/.erlang.cookie",)),
    Agent("Kafka", ("/var/lib/kafka/meta.properties", "/var/lib/kafka/data/meta.properties")),
    Agent(
        "GitHub Actions, Azure Pipelines runners",
        tuple(
            f"{place}/{name}"
            for place in (
                *("/opt/actions-runner*", "/actions-runner*", "/home/*/actions-runner*"),
                *("/root/actions-runner*", "/srv/actions-runner*", "/opt/runner", "/opt/azagent"),
                *("/home/*/runner", "/home/*/myagent", "/opt/vsts*", "/opt/ado-agent"),
            )
            for name in RUNNER
        ),
    ),
    Agent(
        "GitLab, Forgejo runners",
        (
            "/etc/gitlab-runner/.runner_system_id",
            "/var/lib/act_runner/.runner",
            "/var/lib/forgejo-runner/.runner",
        ),
    ),
    Agent(
        "Netdata",
        tuple(
            f"{place}/{path}"
            for place in ("/var/lib/netdata", "/opt/netdata/var/lib/netdata")
            for path in ("registry/netdata.public.unique.id", "cloud.d/**", "netdata.api.key")
        ),
    ),
    Agent("Zabbix", ("/etc/zabbix/*.psk",)),
    Agent("Datadog", ("/etc/datadog-agent/auth_token",)),
    Agent("New Relic", ("/var/db/newrelic-infra/**",)),
    Agent("Checkmk", ("/var/lib/cmk-agent/**",)),
    Agent("Icinga", ("/var/lib/icinga2/certs/**",)),
    Agent(
        "Elastic",
        (
            "/var/lib/*beat/meta.json",
            "/opt/Elastic/Agent/fleet.enc",
            "/etc/elastic-agent/fleet.enc",
            "/var/lib/elastic-agent/data/*/fleet.enc",
        ),
    ),
    Agent("osquery", ("/var/osquery/osquery.db/**",)),
    Agent(
        "Velociraptor",
        (
            "/etc/velociraptor*.writeback.yaml",
            "/opt/velociraptor*/*.writeback.yaml",
            "/etc/velociraptor/*.writeback.yaml",
        ),
    ),
    Agent("CrowdStrike", ("/opt/CrowdStrike/falconstore",)),
    Agent("Wazuh, OSSEC", ("/var/ossec/etc/client.keys",)),
    Agent("Qualys", ("/etc/qualys/hostid",)),
    Agent("Teleport", ("/var/lib/teleport/host_uuid", "/var/lib/teleport/proc/**")),
    Agent(
        "Amazon SSM, ECS",
        (
            "/var/lib/amazon/ssm/registration",
            "/var/lib/amazon/ssm/Vault/**",
            "/var/lib/ecs/data/**",
        ),
    ),
    Agent("Azure Arc", ("/var/opt/azcmagent/certs/*", "/var/opt/azcmagent/agentconfig.json")),
    Agent("Tailscale", ("/var/lib/tailscale/tailscaled.state",)),
    Agent("ZeroTier", ("/var/lib/zerotier-one/identity.*",)),
    Agent("NetBird", ("/etc/netbird/config.json", "/var/lib/netbird/**")),
    Agent("Cloudflare WARP", ("/var/lib/cloudflare-warp/reg.json",)),
    Agent("Tor", ("/var/lib/tor/keys/**",)),
    Agent("Bluetooth", ("/var/lib/bluetooth/**",)),
    Agent("snapd", ("/var/lib/snapd/device/private-keys-v1/*",)),
    Agent("NFS lock state", ("/var/lib/nfs/sm/*", "/var/lib/nfs/sm.bak/*")),
)
POPCON = "/etc/popularity-contest.conf"
LIMIT = 64 << 10  # characters of a user's file


def parse_agents(text: str) -> tuple[Agent, ...]:
    """The rows of a user's file. Raises InvalidParameter for what is none."""
    try:
        rows = tomllib.loads(text).get("agent", []) if len(text) <= LIMIT else None
    except tomllib.TOMLDecodeError as error:
        raise InvalidParameter(f"the file of agents is no TOML: {error}") from None
    if not isinstance(rows, list) or not rows:
        raise InvalidParameter("the file of agents has no [[agent]]", hint=_EXAMPLE)
    return tuple(_row(row) for row in rows)


_EXAMPLE = '[[agent]]\nname = "ACME"\npaths = ["/var/lib/acme/id"]'


def _row(row: object) -> Agent:
    known = isinstance(row, dict) and set(row) == {"name", "paths"}
    if not isinstance(row, dict) or not known or not isinstance(row["name"], str):
        raise InvalidParameter("an [[agent]] has a name and paths, and nothing else", hint=_EXAMPLE)
    paths = row["paths"]
    if not isinstance(paths, list) or not paths or not all(map(_is_path, paths)):
        raise InvalidParameter(
            f"the paths of agent {row['name']!r} are no paths in a guest",
            hint="absolute, without '..', not a whole top directory",
        )
    return Agent(row["name"], tuple(paths))


def _is_path(path: object) -> bool:
    if not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/"):
        return False
    return len([part for part in path.split("/") if part.strip("*")]) >= 2


def remove_paths(edit: Editor, paths: Sequence[str]) -> None:
    """Remove what a list names."""
    for path in paths:
        directory, _slash, last = path.rpartition("/")
        if last == "**":
            for place in edit.guest.glob(directory) if "*" in directory else (directory,):
                edit.remove_files(place)
        elif last == "*" and "*" not in directory:
            edit.remove_contents(directory)
        else:
            edit.remove_all(path)


def remove_agents(edit: Editor, context: Context) -> None:
    for agent in AGENTS:
        remove_paths(edit, agent.paths)
    remove_paths(edit, context.policy.agent_paths)
    change_lines(edit, POPCON, lambda line: None if line.startswith("MY_HOSTID=") else line)


OPERATIONS = (
    Operation(
        "agents",
        "Remove the identities of management agents, cluster members, VPNs and build runners",
        "Their servers take clones with one identity for one machine: they push each other out of "
        "clusters, and secrets of one are secrets of all. A cluster that was formed on the machine "
        "is an identity, too: the databases of etcd, K3s and Consul go, with what was deployed in "
        "them; form the cluster on the clones. --agents FILE names more of them.",
        remove_agents,
        paths=(*(path for agent in AGENTS for path in agent.paths), POPCON),
    ),
)
