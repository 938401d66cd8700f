"""The state of cloud agents: cloud-init and the Azure Linux agent (waagent)."""

import re

from pipeline.guest import network
from pipeline.guest.operations import Context, Editor, Operation

# cloud-init's own files for one instance (cloudinit/cmd/clean.py, --configs all), and what
# installers leave that would keep it from working (azure-docs #58198)
CLOUD_INIT_NETWORK = (
    "/etc/netplan/50-cloud-init.yaml",
    "/etc/NetworkManager/system-connections/cloud-init-*.nmconnection",
    "/etc/systemd/network/10-cloud-init-*.network",
    "/etc/network/interfaces.d/50-cloud-init",
    "/etc/network/interfaces.d/50-cloud-init.cfg",
)
CLOUD_INIT_FILES = (
    "/etc/NetworkManager/conf.d/99-cloud-init.conf",
    "/etc/NetworkManager/conf.d/30-cloud-init-ip6-addr-gen-mode.conf",
    "/etc/ssh/sshd_config.d/50-cloud-init.conf",
    *network.INSTALLERS,
    "/etc/cloud/cloud.cfg.d/50-curtin-networking.cfg",
    "/etc/cloud/cloud.cfg.d/99-installer.cfg",
    "/etc/cloud/cloud.cfg.d/90-installer-network.cfg",
    "/etc/cloud/cloud.cfg.d/curtin-preserve-sources.cfg",
    "/etc/cloud/cloud.cfg.d/90_maas_*.cfg",
)
WAAGENT_UNIT = "waagent-network-setup.service"
WAAGENT_FILES = (
    f"/etc/systemd/system/multi-user.target.wants/{WAAGENT_UNIT}",
    f"/etc/systemd/system/{WAAGENT_UNIT}",
    f"/usr/lib/systemd/system/{WAAGENT_UNIT}",
    f"/lib/systemd/system/{WAAGENT_UNIT}",
)


CONFIGURATION = "/etc/cloud/cloud.cfg.d/*.cfg"
# in a file of configuration: what belongs to one machine or its owner, and must not be told
SECRET = re.compile(
    r"(?m)(?<![\w-])[\"']?(?:consumer_key|consumer_secret|token_key|token_secret|passwd|password"
    r"|hashed_passwd|plain_text_passwd|private[_-]key|rsa_private|ecdsa_private|ed25519_private"
    r"|dsa_private)[\"']?\s*:\s*[^\s#]"
)
PINNED = re.compile(r"(?m)^\s*datasource_list\s*:\s*\[\s*(?:MAAS|None)\s*(?:,\s*None\s*)?\]")
CARD = re.compile(r"(?m)^network\s*:")
SCRIPTS = "scripts"  # below /var/lib/cloud; per-boot, per-instance and per-once are the image's


def clean_cloud_init(edit: Editor, _: Context) -> None:
    state = edit.place("/var/lib/cloud")
    for name in edit.guest.names(state):
        kept = name == SCRIPTS and edit.is_directory(f"{state}/{name}")
        for inner in edit.guest.names(f"{state}/{name}") if kept else ():
            if not inner.startswith("per-"):
                edit.remove(f"{state}/{name}/{inner}")
        if not kept:
            edit.remove(f"{state}/{name}")
    written = network.written_at_first_boot(edit)
    gone = [path for pattern in CLOUD_INIT_NETWORK for path in edit.guest.glob(pattern)]
    edit.remove_all(*CLOUD_INIT_NETWORK, *CLOUD_INIT_FILES)
    for path in edit.guest.glob(CONFIGURATION):
        if _is_one_machines(edit.text(path)):
            edit.remove(path)
    if not written:
        network.keep_reachable(edit, gone)


def _is_one_machines(text: str) -> bool:
    """Whether a file of cloud-init's configuration holds secrets, is for one network card, or ties
    the guest to the source of data that its installer had."""
    about_card = CARD.search(text) is not None and network.MAC.search(text) is not None
    return about_card or bool(SECRET.search(text) or PINNED.search(text))


def clean_waagent(edit: Editor, _: Context) -> None:
    edit.remove_contents("/var/lib/waagent", "/var/log/azure")
    edit.remove_all(*WAAGENT_FILES)


OPERATIONS = (
    Operation(
        "cloud-init",
        "Remove cloud-init's instance data, seeds and the files that it made from them",
        "With them it takes a clone for the machine it knows; and user data holds secrets. The "
        "image's own scripts (scripts/per-*) stay; network files that nothing would write again "
        "give way to DHCP.",
        clean_cloud_init,
        paths=("/var/lib/cloud", *CLOUD_INIT_NETWORK, *CLOUD_INIT_FILES, CONFIGURATION),
    ),
    Operation(
        "waagent",
        "Remove the Azure agent's state, keys and extension logs",
        "They hold certificates, protected settings and the identity of one machine.",
        clean_waagent,
        paths=("/var/lib/waagent", "/var/log/azure", *WAAGENT_FILES),
    ),
)
