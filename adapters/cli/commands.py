"""The commands of `galleria`, in the order in which a newcomer meets them."""

import click

from adapters.cli.lazy import LazyGroup

# name: (module:attribute, help). The help stands here so that listing imports nothing; a test
# holds it equal to the command's own.
COMMANDS = {
    "init": ("adapters.cli.setup:init", "Write the configuration and make the catalog and zones."),
    "config": ("adapters.cli.setup:config", "Show the configuration and where it comes from."),
    "doctor": (
        "adapters.cli.host:doctor",
        "Check what this host can do; exit 0 only when the main job can run.",
    ),
    "gallery": (
        "adapters.cli.galleries:gallery",
        "Make, list, show, change and delete galleries.",
    ),
    "definition": (
        "adapters.cli.definitions:definition",
        "Make, list, show, change and delete image definitions.",
    ),
    "vm": (
        "adapters.cli.machines:vm",
        "List and show virtual machines that can be published.",
    ),
    "publish": ("adapters.cli.publishing:publish_command", "Publish disks as an image version."),
    "build": (
        "adapters.cli.builds:build",
        "Publish what build specs say; what is there already is left alone.",
    ),
    "plan": (
        "adapters.cli.builds:plan",
        "Say what build would do and what is there already; do nothing.",
    ),
    "spec": ("adapters.cli.specs:spec", "Check build specs, and print their JSON schema."),
    "list": ("adapters.cli.versions:list_versions", "List image versions, newest first."),
    "show": (
        "adapters.cli.showing:show",
        "Show one version: regions, replicas, how they were made, bytes.",
    ),
    "version": (
        "adapters.cli.releases:version",
        "List, show, change, delete and undelete image versions.",
    ),
    "promote": (
        "adapters.cli.lifecycle:promote",
        "Let GALLERY/DEFINITION@CHANNEL mean this version.",
    ),
    "retention": ("adapters.cli.lifecycle:retention", "Delete old versions by rule."),
    "diff": (
        "adapters.cli.proof:diff",
        "Say what changed between two versions: packages, configuration, users, blocks.",
    ),
    "sbom": (
        "adapters.cli.proof:sbom",
        "Print a version's packages as a CycloneDX bill of materials (JSON).",
    ),
    "boot-check": (
        "adapters.cli.booting:boot_check",
        "Boot a throw-away clone of a version, without network, and say who it is.",
    ),
    "deploy": (
        "adapters.cli.deploying:deploy_command",
        "Make VMs: copy-on-write disks, a libvirt domain and a qemu command line.",
    ),
    "deployed": ("adapters.cli.deploying:deployed", "List deployed VMs, and give them up."),
    "scale-set": (
        "adapters.cli.scale_sets:scale_set",
        "Groups of like VMs that grow, shrink and change their image together.",
    ),
    "cost": (
        "adapters.cli.cost:cost_command",
        "Show the bytes that a gallery stores and sent, by region, and what sharing saved.",
    ),
    "replicate": (
        "adapters.cli.copies:replicate",
        "Bring a version to more regions, or make failed regions again.",
    ),
    "verify": (
        "adapters.cli.copies:verify",
        "Read a version's bases and replicas again and compare every chunk.",
    ),
    "export": (
        "adapters.cli.copies:export",
        "Write one disk of a version as a stand-alone file.",
    ),
    "share": (
        "adapters.cli.share:share",
        "Share galleries with subscriptions, tenants or everyone.",
    ),
    "list-shared": (
        "adapters.cli.shared:list_shared",
        "List the galleries that are shared with you directly.",
    ),
    "list-community": ("adapters.cli.shared:list_community", "List the community galleries."),
    "principal": (
        "adapters.cli.principals:principal",
        "Make, list and delete users, groups and service principals.",
    ),
    "role": ("adapters.cli.principals:role", "Give, list and take away roles."),
    "audit": ("adapters.cli.audit:audit", "Read and verify the record of changes and refusals."),
    "inspect": (
        "adapters.cli.files:inspect",
        "Say what an image file really is, whether it is safe, and what is in it.",
    ),
    "generalize": ("adapters.cli.files:generalize", "Write a generalized copy of a disk."),
    "convert": ("adapters.cli.files:convert", "Write a disk in another format."),
    "hash": (
        "adapters.cli.files:hash_command",
        "Digest the guest-visible bytes of a disk: equal in every format.",
    ),
    "snapshot": ("adapters.cli.snapshots:snapshot", "Keep points in time of disks."),
    "disk": ("adapters.cli.disks:disk", "Make, list, show and delete writable disks."),
    "image": ("adapters.cli.images:image", "Make, list, show and delete managed images."),
    "tenant": ("adapters.cli.scopes:tenant", "Make, list, show and delete tenants."),
    "subscription": (
        "adapters.cli.scopes:subscription",
        "Make, list, show and delete subscriptions.",
    ),
    "group": ("adapters.cli.scopes:group", "Make, list and delete resource groups."),
    "validate": (
        "adapters.cli.validation:validate_command",
        "Check whether a cloud would take a disk, and whether it would run there.",
    ),
    "operations": ("adapters.cli.guests:operations", "List what generalizing a guest does."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit statuses: 1 failed, 2 usage, 3 environment, 4 not found, 5 conflict, 6 refused,"
    " 7 partial, 8 no space, 130 interrupted.",
)
@click.version_option(package_name="galleria", message="galleria %(version)s")
def cli() -> None:
    """Turn VM disks into versioned, generalized, replicated images on your own hosts."""
