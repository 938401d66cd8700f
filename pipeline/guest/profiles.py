"""Every operation, and the profiles: named policies of which ones run."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import InvalidParameter
from pipeline.guest import (
    clouds,
    custom,
    homes,
    identity,
    leftovers,
    network,
    services,
    ssh,
    swap,
    vagrant,
)
from pipeline.guest.agents import Agent
from pipeline.guest.operations import Operation, Policy, Script, Users
from pipeline.guest.windows import clean
from pipeline.model.spelling import did_you_mean

# In the order in which they run: who was provisioned is read before that state goes, homes are
# found by /etc/passwd before accounts go, and what editing itself leaves goes last.
OPERATIONS: tuple[Operation, ...] = (
    *homes.OPERATIONS,
    *identity.OPERATIONS,
    *ssh.OPERATIONS,
    *network.OPERATIONS,
    *clouds.OPERATIONS,
    *services.OPERATIONS,
    *swap.OPERATIONS,
    *custom.OPERATIONS,
    *leftovers.OPERATIONS,
    *clean.OPERATIONS,
)
DEFAULT = "sysprep"
_ALL = tuple(operation.name for operation in OPERATIONS if operation.default)
_OF_PEOPLE = ("ssh-user-keys", "ssh-authorized-keys", "user-credentials", "user-accounts")


@dataclass(frozen=True, slots=True)
class Profile:
    name: str
    description: str
    operations: tuple[str, ...]
    users: Users
    keep_users: tuple[str, ...] = ()
    keep_insecure_keys: bool = False


PROFILES: tuple[Profile, ...] = (
    Profile(
        "deprovision",
        "the machine's identity and state; people's accounts and keys stay (as waagent "
        "-deprovision, and what that forgets)",
        tuple(name for name in _ALL if name not in _OF_PEOPLE),
        Users.NONE,
    ),
    Profile(
        "deprovision+user",
        "as deprovision, and the user that the cloud's agent made; keys and credentials of "
        "everybody (as waagent -deprovision+user)",
        _ALL,
        Users.PROVISIONED,
    ),
    Profile(
        "sysprep",
        "all identities: every human account, key, credential and trace of the machine",
        _ALL,
        Users.ALL,
    ),
    Profile(
        "vagrant",
        "as sysprep, but for what a Vagrant box needs: the user vagrant, Vagrant's insecure key, "
        "its sudo rule",
        _ALL,
        Users.ALL,
        keep_users=(vagrant.USER,),
        keep_insecure_keys=True,
    ),
    Profile(
        "minimal",
        "only what must differ between two machines for both to work",
        (
            *("boot-identity", "machine-id", "random-seed", "ssh-host-keys", "dhcp-leases"),
            *("network-state", "hostname"),
        ),
        Users.NONE,
    ),
    Profile("none", "nothing", (), Users.NONE),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run of generalize will do."""

    profile: str
    operations: tuple[Operation, ...]
    policy: Policy


def select(
    profile: str = DEFAULT,
    enable: Sequence[str] = (),
    skip: Sequence[str] = (),
    *,
    only: Sequence[str] = (),
    remove_users: Sequence[str] = (),
    keep_users: Sequence[str] = (),
    force: bool = False,
    remove_paths: Sequence[str] = (),
    truncate_paths: Sequence[str] = (),
    scripts: Sequence[Script] = (),
    agents: Sequence[Agent] = (),
) -> Plan:
    """The operations of a profile, or `only` these, with those of `enable` and without those of
    `skip`, in the order in which they run. Raises InvalidParameter for an unknown name."""
    chosen = {found.name: found for found in PROFILES}.get(profile)
    if chosen is None:
        names = [found.name for found in PROFILES]
        raise InvalidParameter(
            f"there is no profile {profile!r}{did_you_mean(profile, names)}",
            hint=f"profiles: {', '.join(names)}",
        )
    known = [operation.name for operation in OPERATIONS]
    for name in (*enable, *skip, *only):
        if name not in known:
            raise InvalidParameter(
                f"there is no operation {name!r}{did_you_mean(name, known)}",
                hint="galleria operations lists them",
            )
    wanted = (set(only or chosen.operations) | set(enable)) - set(skip)
    for path in (*remove_paths, *truncate_paths):
        if not path.startswith("/") or ".." in path.split("/") or path.strip("/*") == "":
            raise InvalidParameter(
                f"{path!r} is no path in a guest", hint="absolute, without '..', not everything"
            )
    policy = Policy(
        chosen.users,
        frozenset(remove_users),
        frozenset((*chosen.keep_users, *keep_users)),
        tuple(remove_paths),
        tuple(truncate_paths),
        tuple(scripts),
        tuple(path for agent in agents for path in agent.paths),
        force,
        chosen.keep_insecure_keys,
    )
    if scripts:
        wanted.add("scripts")
    if remove_paths or truncate_paths:
        wanted.add("extra-paths")
    return Plan(profile, tuple(op for op in OPERATIONS if op.name in wanted), policy)
