"""The state of cloud agents: cloud-init and the Azure Linux agent (waagent)."""

from pipeline.guest.operations import Context, Editor, Operation

# cloud-init's own files for one instance (cloudinit/cmd/clean.py, --configs all), and what
# installers leave that would keep it from working (azure-docs #58198)
CLOUD_INIT_FILES = (
    "/etc/netplan/50-cloud-init.yaml",
    "/etc/NetworkManager/conf.d/99-cloud-init.conf",
    "/etc/NetworkManager/conf.d/30-cloud-init-ip6-addr-gen-mode.conf",
    "/etc/NetworkManager/system-connections/cloud-init-*.nmconnection",
    "/etc/systemd/network/10-cloud-init-*.network",
    "/etc/network/interfaces.d/50-cloud-init",
    "/etc/network/interfaces.d/50-cloud-init.cfg",
    "/etc/ssh/sshd_config.d/50-cloud-init.conf",
    "/etc/cloud/cloud.cfg.d/subiquity-disable-cloudinit-networking.cfg",
    "/etc/cloud/cloud.cfg.d/99-installer.cfg",
    "/etc/cloud/cloud.cfg.d/90-installer-network.cfg",
    "/etc/cloud/cloud.cfg.d/curtin-preserve-sources.cfg",
)
WAAGENT_UNIT = "waagent-network-setup.service"
WAAGENT_FILES = (
    f"/etc/systemd/system/multi-user.target.wants/{WAAGENT_UNIT}",
    f"/etc/systemd/system/{WAAGENT_UNIT}",
    f"/usr/lib/systemd/system/{WAAGENT_UNIT}",
    f"/lib/systemd/system/{WAAGENT_UNIT}",
)


def clean_cloud_init(edit: Editor, _: Context) -> None:
    edit.remove_contents("/var/lib/cloud")
    edit.remove_all(*CLOUD_INIT_FILES)


def clean_waagent(edit: Editor, _: Context) -> None:
    edit.remove_contents("/var/lib/waagent", "/var/log/azure")
    edit.remove_all(*WAAGENT_FILES)


OPERATIONS = (
    Operation(
        "cloud-init",
        "Remove cloud-init's instance data, seeds and the files that it made from them",
        "With them it takes a clone for the machine it knows; and user data holds secrets.",
        clean_cloud_init,
        paths=("/var/lib/cloud", *CLOUD_INIT_FILES),
    ),
    Operation(
        "waagent",
        "Remove the Azure agent's state, keys and extension logs",
        "They hold certificates, protected settings and the identity of one machine.",
        clean_waagent,
        paths=("/var/lib/waagent", "/var/log/azure", *WAAGENT_FILES),
    ),
)
