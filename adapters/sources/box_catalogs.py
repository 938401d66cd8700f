"""Which box a catalog of Vagrant's offers: its URL and its SHA-256.

Source: https://developer.hashicorp.com/vagrant/docs/boxes/format ("Box Metadata"), and of the
architectures Vagrant's `lib/vagrant/box_metadata.rb`. The catalog is a stranger's: nothing of it is
taken but these two, and the box has to have that digest.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urljoin

from adapters.sources.boxes import version_order
from adapters.sources.download import parse_checksum
from adapters.sources.http import split
from pipeline.data.text import printable
from pipeline.errors import DescriptionInvalid, InvalidParameter, NotFound
from pipeline.model.sources import CatalogBox, UrlSource, public_url

CHECKSUM = "give the URL of the box itself, with --checksum sha256:..."


def choose(content: bytes, wanted: CatalogBox) -> UrlSource:
    """The box that is meant: of the newest version that has one, and of the architecture that the
    catalog takes for its default, where several are offered. Raises DescriptionInvalid for what is
    no catalog, NotFound, and InvalidParameter where several boxes are meant."""
    shown = public_url(wanted.url)
    try:
        versions = _versions(json.loads(content))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise DescriptionInvalid(
            f"what {shown!a} answers is no catalog of Vagrant's", hint=CHECKSUM
        ) from None
    for number in sorted(versions, key=version_order, reverse=True):
        if wanted.version in ("", number):
            offers = [
                offer
                for offer in versions[number]
                if wanted.provider in ("", offer.get("name"))
            ]  # fmt: skip
            if offers:
                return _located(_one(offers, number, shown), number, wanted)
    known = ", ".join(printable(number) for number in list(versions)[:20])
    meant = f"version {wanted.version}" if wanted.version else "box"
    of = f" for {wanted.provider}" if wanted.provider else ""
    raise NotFound(f"{shown!a} has no {printable(meant + of)}", hint=f"versions there: {known}")


def _versions(document: Any) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for version in document["versions"]:
        offers = version["providers"]
        if not all(isinstance(offer, dict) for offer in offers):
            raise TypeError("a provider is no object")
        found[str(version["version"])] = list(offers)
    return found


def _one(offers: Sequence[Mapping[str, Any]], number: str, shown: str) -> Mapping[str, Any]:
    if len(offers) > 1:
        offers = [offer for offer in offers if offer.get("default_architecture") is True] or offers
    if len(offers) == 1:
        return offers[0]
    names = dict.fromkeys(printable(str(offer.get("name"))) for offer in offers)
    raise InvalidParameter(
        f"{shown!a} offers {len(offers)} boxes of version {printable(number)}",
        hint="name one: " + ", ".join(f"URL#{printable(number)}:{name}" for name in names),
    )


def _located(offer: Mapping[str, Any], number: str, wanted: CatalogBox) -> UrlSource:
    kind, digest = offer.get("checksum_type"), offer.get("checksum")
    if not (isinstance(kind, str) and kind.lower() == "sha256" and isinstance(digest, str)):
        raise DescriptionInvalid(
            f"{public_url(wanted.url)!a} gives no SHA-256 of its version {printable(number)}",
            hint=CHECKSUM,
        )
    # what the catalog names is as untrusted as what it answers: it is checked as any other URL
    address = urljoin(wanted.url, str(offer.get("url")))
    split(address)
    return UrlSource(None, address, parse_checksum(f"sha256:{digest}"))
