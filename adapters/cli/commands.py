"""The commands of `galleria`, in the order in which a newcomer meets them."""

import click

from adapters.cli.lazy import LazyGroup

# name: (module:attribute, help). The help stands here so that listing imports nothing; a test
# holds it equal to the command's own.
COMMANDS = {
    "init": ("adapters.cli.setup:init", "Write the configuration and make the catalog and zones."),
    "config": ("adapters.cli.setup:config", "Show the configuration and where it comes from."),
    "doctor": (
        "adapters.cli.setup:doctor",
        "Check what this host can do; exit 0 only when the main job can run.",
    ),
    "guide": ("adapters.cli.guide:guide", "List the guides, or show one."),
    "gallery": (
        "adapters.cli.gallery:gallery",
        "Make, list, show, change and delete galleries.",
    ),
    "definition": (
        "adapters.cli.definition:definition",
        "Make, list, show, change and delete image definitions.",
    ),
    "vm": (
        "adapters.cli.vm:vm",
        "List and show virtual machines that can be published.",
    ),
    "publish": ("adapters.cli.publish:publish_command", "Publish disks as an image version."),
    "build": (
        "adapters.cli.build:build",
        "Publish versions from build specs; versions that exist already are left alone.",
    ),
    "plan": (
        "adapters.cli.build:plan",
        "Show what build would do, and what exists already; change nothing.",
    ),
    "spec": ("adapters.cli.spec:spec", "Check build specs, and print their JSON schema."),
    "list": ("adapters.cli.version:list_versions", "List image versions, newest first."),
    "show": (
        "adapters.cli.version:show",
        "Show one version: its regions, replicas, disks and sizes.",
    ),
    "version": (
        "adapters.cli.version:version",
        "List, show, change, delete and undelete image versions.",
    ),
    "promote": (
        "adapters.cli.version:promote",
        "Point a channel, GALLERY/DEFINITION@CHANNEL, to this version.",
    ),
    "retention": ("adapters.cli.version:retention", "Delete old versions by rule."),
    "diff": (
        "adapters.cli.proof:diff",
        "Show what changed between two versions: packages, configuration, users, blocks.",
    ),
    "sbom": (
        "adapters.cli.proof:sbom",
        "Print a version's packages as a CycloneDX bill of materials (JSON).",
    ),
    "boot-check": (
        "adapters.cli.proof:boot_check",
        "Boot a temporary clone of a version, without network, and show its identity.",
    ),
    "deploy": (
        "adapters.cli.deploy:deploy_command",
        "Make VMs: copy-on-write disks, a libvirt domain and a qemu command line.",
    ),
    "deployed": ("adapters.cli.deploy:deployed", "List and release deployed VMs."),
    "scale-set": (
        "adapters.cli.scale_set:scale_set",
        "Make, scale, update, list and delete groups of identical VMs.",
    ),
    "cost": (
        "adapters.cli.gallery:cost_command",
        "Show how many bytes a gallery stores and transferred, and what shared blocks saved.",
    ),
    "replicate": (
        "adapters.cli.version:replicate",
        "Bring a version to more regions, or make failed regions again.",
    ),
    "verify": (
        "adapters.cli.proof:verify",
        "Read a version's bases and replicas again and compare every chunk.",
    ),
    "scrub": (
        "adapters.cli.scrub:scrub",
        "Read what zones hold from the disk, and compare the catalog with it.",
    ),
    "repair": (
        "adapters.cli.scrub:repair",
        "Read what zones hold, and make what is bad or lost again from what is sound.",
    ),
    "export": (
        "adapters.cli.file:export",
        "Write one disk of a version as a stand-alone file, or all of it as a Vagrant box.",
    ),
    "export catalog": (
        "adapters.cli.vagrant:export_catalog",
        "Write catalogs and boxes for Vagrant as files.",
    ),
    "serve": ("adapters.cli.serve:serve_command", "Serve the gallery by Azure's REST API."),
    "serve vagrant": (
        "adapters.cli.vagrant:serve_vagrant",
        "Serve catalogs and boxes to Vagrant over HTTP; a box is made when it is first asked for.",
    ),
    "share": (
        "adapters.cli.share:share",
        "Share galleries with subscriptions, tenants or everyone.",
    ),
    "list-shared": (
        "adapters.cli.share:list_shared",
        "List the galleries that are shared with you directly.",
    ),
    "list-community": ("adapters.cli.share:list_community", "List the community galleries."),
    "principal": (
        "adapters.cli.access:principal",
        "Make, list and delete users, groups, service principals, and their secrets.",
    ),
    "role": ("adapters.cli.access:role", "Assign, list and remove roles."),
    "catalog": (
        "adapters.cli.catalog:catalog",
        "Check the catalog, make a backup, restore or rebuild it.",
    ),
    "runs": (
        "adapters.cli.runs:runs",
        "List jobs, follow one, cancel or resume it, or read its log.",
    ),
    "metrics": (
        "adapters.cli.metrics:metrics",
        "Print what there is, as metrics in Prometheus's text format.",
    ),
    "gc": (
        "adapters.cli.garbage:gc_command",
        "Remove what nobody needs: bases, remains of killed runs, old downloads and logs.",
    ),
    "audit": ("adapters.cli.access:audit", "Read and verify the record of changes and refusals."),
    "inspect": (
        "adapters.cli.file:inspect",
        "Show what an image file, a Vagrant box or an OVA really is and holds, and if it is safe.",
    ),
    "generalize": ("adapters.cli.file:generalize", "Write a generalized copy of a disk."),
    "convert": ("adapters.cli.file:convert", "Write a disk in another format."),
    "hash": (
        "adapters.cli.file:hash_command",
        "Print the digest of a disk's content: the same in every format.",
    ),
    "snapshot": (
        "adapters.cli.snapshot:snapshot",
        "Make, list, show, export and delete snapshots of disks.",
    ),
    "disk": ("adapters.cli.disk:disk", "Make, list, show and delete writable disks."),
    "image": ("adapters.cli.image:image", "Make, list, show and delete managed images."),
    "tenant": ("adapters.cli.scope:tenant", "Make, list, show and delete tenants."),
    "subscription": (
        "adapters.cli.scope:subscription",
        "Make, list, show and delete subscriptions.",
    ),
    "group": ("adapters.cli.scope:group", "Make, list and delete resource groups."),
    "validate": (
        "adapters.cli.proof:validate_command",
        "Check whether a cloud would accept a disk, and whether it would run there.",
    ),
    "schema": (
        "adapters.cli.schema:schema",
        "Print the JSON schema of what a command prints with --json.",
    ),
    "operations": ("adapters.cli.operation:operations", "List what generalizing a guest does."),
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
