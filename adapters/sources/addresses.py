"""Which addresses a download may connect to: public ones, and the networks that the configuration
allows.

A URL is an order from whoever wrote it to this host's network. What it must not reach is what only
this host can reach: itself, its neighbours, and the metadata service that hands out its credentials
(server-side request forgery). IPv6 has many ways to write an IPv4 address: each is looked into.
"""

import ipaddress
from collections.abc import Iterator, Sequence

from pipeline.errors import Refused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# the well-known NAT64 prefix (RFC 6052), and IPv4-compatible addresses (RFC 4291, deprecated):
# the last 32 bits are an IPv4 address
EMBEDDING = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))
# ISATAP (RFC 5214): the interface identifier is 0:5efe or 200:5efe and an IPv4 address
ISATAP = {0x00005EFE, 0x02005EFE}
REFUSED = tuple(
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # Azure's own services, at a public address
        "64:ff9b:1::/48",  # NAT64 of local use (RFC 8215)
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "fec0::/10",  # site-local (RFC 3879)
        "3fff::/20",  # documentation (RFC 9637)
        "5f00::/16",  # segment routing (RFC 9602)
    )
)


class AddressRefused(Refused):
    """A URL leads to an address that downloads may not connect to."""

    code = "AddressRefused"


def networks(text: str) -> tuple[Network, ...]:
    """Networks separated by commas."""
    return tuple(ipaddress.ip_network(item) for item in text.split(",") if item)


def check(text: str, host: str, allowed: Sequence[Network]) -> Address:
    """The address, if a download may connect to it. Raises AddressRefused."""
    address = ipaddress.ip_address(text.split("%")[0])
    if "%" not in text and any(address in network for network in allowed):
        return address
    for meant in (address, *_embedded(address)):
        if _is_refused(meant) or "%" in text:
            raise AddressRefused(
                f"{host!a} is at {address}, which is not a public address",
                hint="allow_private_sources in the configuration names the networks that "
                "downloads may reach beside the public ones",
            )
    return address


def _is_refused(address: Address) -> bool:
    if any(address in network for network in REFUSED):
        return True
    return not address.is_global or address.is_multicast or address.is_reserved


def _embedded(address: Address) -> Iterator[ipaddress.IPv4Address]:
    """Every IPv4 address that an IPv6 address stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    number = int(address)
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if any(address in network for network in EMBEDDING) or number >> 32 & 0xFFFFFFFF in ISATAP:
        yield ipaddress.IPv4Address(number & 0xFFFFFFFF)
