"""Boxes that Vagrant has: `vagrant box add` unpacks them below VAGRANT_HOME.

    boxes/ORG-VAGRANTSLASH-NAME/VERSION/PROVIDER/               the box's files
    boxes/ORG-VAGRANTSLASH-NAME/VERSION/ARCHITECTURE/PROVIDER/  since Vagrant 2.4

Source: Vagrant's box collection (lib/vagrant/box_collection.rb).
"""

import os
import re
from pathlib import Path

from pipeline.errors import InvalidParameter, NotFound

SLASH = "-VAGRANTSLASH-"
METADATA = "metadata.json"
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_NAME = re.compile(rf"({_PART}(?:/{_PART})?)(?:@([0-9A-Za-z.-]+))?(?::([a-z_]+))?")


def find_box(text: str) -> Path:
    """The box that is meant: a file or directory of that name, else `NAME[@VERSION][:PROVIDER]` of
    those that were added to Vagrant, the newest version when none is given. Raises NotFound, and
    InvalidParameter where several are meant."""
    path = Path(text)
    match = _NAME.fullmatch(text)
    if path.exists() or match is None or text.endswith(".box"):
        return path
    name, version, provider = match.groups()
    place = _boxes() / name.replace("/", SLASH)
    if not place.is_dir():
        raise NotFound(
            f"no such file or box: {text}",
            hint=f"vagrant box list shows those that were added; they are looked for in {_boxes()}",
        )
    directories = (item for item in place.iterdir() if item.is_dir())
    versions = sorted(directories, key=lambda item: version_order(item.name))
    chosen = [item for item in versions if version in (None, item.name)]
    if not chosen:
        known = ", ".join(item.name for item in versions)
        raise NotFound(f"the box {name} has no version {version} here", hint=f"there is: {known}")
    found = _providers(chosen[-1])
    if provider:
        found = [item for item in found if item.name == provider]
    if not found:
        raise NotFound(f"the box {name} {chosen[-1].name} is not here for {provider or 'anything'}")
    if len(found) > 1:
        choices = ", ".join(f"{name}@{chosen[-1].name}:{item.name}" for item in found)
        raise InvalidParameter(f"the box {name} is here for several providers", hint=choices)
    return found[0]


def _boxes() -> Path:
    home = os.environ.get("VAGRANT_HOME")
    return (Path(home) if home else Path.home() / ".vagrant.d") / "boxes"


def _providers(place: Path) -> list[Path]:
    """The directories that hold a box: of providers, or of an architecture's."""
    found = (*place.glob(f"*/{METADATA}"), *place.glob(f"*/*/{METADATA}"))
    return sorted(item.parent for item in found)


def version_order(text: str) -> tuple[tuple[int, str], ...]:
    """The order of versions: by number; what is no number comes before all."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in text.split("."))
