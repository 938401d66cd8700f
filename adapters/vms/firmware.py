"""UEFI firmware of this host, found by its descriptors.

QEMU's firmware interface, docs/interop/firmware.json: distributions describe each build in a JSON
file; by the order of the file names the first that fits is the one to use.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import EnvironmentMissing
from pipeline.model import Architecture

# in the order of precedence: a file of an earlier directory hides its namesakes
DIRECTORIES = (Path("/etc/qemu/firmware"), Path("/usr/share/qemu/firmware"))
MACHINES = {Architecture.X64: "x86_64", Architecture.ARM64: "aarch64"}
PACKAGES = {Architecture.X64: "ovmf", Architecture.ARM64: "qemu-efi-aarch64"}


@dataclass(frozen=True, slots=True)
class Firmware:
    """The code, which VMs share, and the template of the variables, of which each has a copy."""

    code: Path
    template: Path
    needs_smm: bool


def find(
    architecture: Architecture,
    *,
    secure_boot: bool,
    enrolled_keys: bool = True,
    nvram_length: int | None = None,
    directories: tuple[Path, ...] = DIRECTORIES,
) -> Firmware:
    """Firmware for a VM. Secure Boot starts with `enrolled_keys`, or without any, in setup mode.
    With `nvram_length` it is one whose variables take that many bytes: those of another build's
    would not be read. Raises EnvironmentMissing."""
    for descriptor in _descriptors(directories):
        wanted = {"secure-boot": secure_boot, "enrolled-keys": secure_boot and enrolled_keys}
        found = _fitting(descriptor, MACHINES[architecture], wanted)
        if found is None or not found.code.exists() or not found.template.exists():
            continue
        if nvram_length is None or found.template.stat().st_size == nvram_length:
            return found
    size = f", for NVRAM of {nvram_length} bytes" if nvram_length else ""
    kind = " with Secure Boot" if secure_boot else ""
    raise EnvironmentMissing(
        f"this host has no UEFI firmware{kind} for {MACHINES[architecture]}{size}",
        hint=f"install it ({PACKAGES[architecture]} on Debian)",
    )


def _descriptors(directories: tuple[Path, ...]) -> Iterator[dict[str, Any]]:
    files: dict[str, Path] = {}
    for directory in directories:
        for path in directory.glob("*.json"):
            files.setdefault(path.name, path)
    for name in sorted(files):
        try:
            content = json.loads(files[name].read_text())
        except ValueError:
            continue  # an administrator hides a descriptor by an empty file of its name
        if isinstance(content, dict):
            yield content


def _fitting(content: dict[str, Any], machine: str, wanted: dict[str, bool]) -> Firmware | None:
    features = content.get("features", [])
    mapping = content.get("mapping", {})
    if (
        "uefi" not in content.get("interface-types", [])
        or mapping.get("device") != "flash"
        or machine not in {target.get("architecture") for target in content.get("targets", [])}
        or any((feature in features) != there for feature, there in wanted.items())
    ):
        return None
    code, template = mapping.get("executable", {}), mapping.get("nvram-template", {})
    if code.get("format") != "raw" or template.get("format") != "raw":
        return None
    return Firmware(Path(code["filename"]), Path(template["filename"]), "requires-smm" in features)
