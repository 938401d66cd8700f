"""The commands of `galleria`, in the order in which a newcomer meets them."""

import click

from adapters.cli.lazy import LazyGroup

# name: (module:attribute, help). The help stands here so that listing imports nothing; a test
# holds it equal to the command's own.
COMMANDS = {
    "init": ("adapters.cli.setup:init", "Write the configuration and make the catalog and zones."),
    "config": ("adapters.cli.setup:config", "Show the configuration and where it comes from."),
    "gallery": ("adapters.cli.galleries:gallery", "Make, list, show and delete galleries."),
    "definition": (
        "adapters.cli.galleries:definition",
        "Make, list, show and delete image definitions.",
    ),
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
