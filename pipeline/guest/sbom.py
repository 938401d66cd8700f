"""A list of packages as a software bill of materials: CycloneDX 1.6, JSON.

Source: ECMA-424 (CycloneDX 1.6) and the package-url specification's types deb, rpm, apk, alpm and
generic (programs of Windows).
The document depends on nothing but the packages, so that equal guests have equal documents: no time
stamp, and a serial number that is a digest.

The tests read it with the format's own libraries. They do not write it: cyclonedx-python-lib takes
80 times as long (2 s for 2,000 packages) and always adds a time stamp; packageurl-python fails on
names that a hostile guest may have, such as "/".
"""

import hashlib
import json
import string
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.ports import GuestFacts, Package

SPECIFICATION = "1.6"
ARCHITECTURE = "galleria:architecture"
KIND = "galleria:packageType"


def bill(packages: Sequence[Package], facts: GuestFacts) -> dict[str, Any]:
    """The document."""
    system = {
        "type": "operating-system",
        "bom-ref": "operating-system",
        "name": facts.distribution,
        "version": facts.version,
    }
    components = [_component(package, facts) for package in packages]
    content = json.dumps([system, components], sort_keys=True).encode()
    serial = uuid.UUID(bytes=hashlib.sha256(content).digest()[:16], version=4)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "galleria"}]},
            "component": system,
        },
        "components": components,
    }


def packages_in(document: Mapping[str, Any]) -> tuple[Package, ...]:
    """The packages of a document that `bill` made."""
    found = []
    for component in document["components"]:
        properties = {item["name"]: item["value"] for item in component["properties"]}
        found.append(
            Package(
                component["name"],
                component["version"],
                properties[ARCHITECTURE],
                properties[KIND],
            )
        )
    return tuple(found)


def purl(package: Package, facts: GuestFacts) -> str:
    """The package URL, canonical: `pkg:deb/debian/bash@5.2.15-2%2Bb2?arch=amd64&distro=...`.
    What is an epoch in RPM's version is a qualifier there."""
    version, qualifiers = package.version, {"arch": package.architecture}
    if package.kind == "rpm" and ":" in version:
        qualifiers["epoch"], _, version = version.partition(":")
    qualifiers["distro"] = f"{facts.distribution}-{facts.version}" if facts.version else ""
    query = "&".join(f"{key}={_part(value)}" for key, value in sorted(qualifiers.items()) if value)
    name = package.name if package.kind in ("rpm", "generic") else package.name.lower()
    parts = ["pkg:" + package.kind, _part(facts.distribution.lower()), _part(name)]
    at = f"@{_part(version)}" if version else ""
    return "/".join(parts) + at + (f"?{query}" if query else "")


def _component(package: Package, facts: GuestFacts) -> dict[str, Any]:
    address = purl(package, facts)
    return {
        "type": "library",
        "bom-ref": address,
        "name": package.name,
        "version": package.version,
        "purl": address,
        "properties": [
            {"name": ARCHITECTURE, "value": package.architecture},
            {"name": KIND, "value": package.kind},
        ],
    }


def _part(text: str) -> str:
    """Percent-encoded, but for what package URLs leave as it is."""
    return "".join(
        chr(byte) if byte in _PLAIN else f"%{byte:02X}"
        for byte in text.encode("utf-8", "surrogateescape")
    )


_PLAIN = frozenset((string.ascii_letters + string.digits + ".-_~:").encode())
