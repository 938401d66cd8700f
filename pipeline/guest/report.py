"""What a version's report is: JSON that is stored with it, and the digest that is part of its
record.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from blake3 import blake3

# Names of files and directories may be what was taken out: journal directories are named by the
# machine's id, leases by a connection's, profiles by a network card's address.
IDENTITY = re.compile(
    r"(?<![0-9A-Fa-f])(?:"
    r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"  # UUID
    r"|[0-9A-Fa-f]{32}"  # machine id
    r"|[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}"  # MAC address
    r")(?![0-9A-Fa-f])"
)
REDACTED = "<id>"


def digest(report: Mapping[str, Any]) -> str:
    """BLAKE3 of the report's canonical form, in hexadecimal: it is the same after any way through
    JSON (RFC 8785's rules for what occurs here: sorted keys, no blanks, UTF-8; no fractions)."""
    text = json.dumps(report, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return blake3(text.encode("utf-8", "surrogatepass")).hexdigest()


def redacted(path: str) -> str:
    """A path for the report, without the identities that are in it."""
    return IDENTITY.sub(REDACTED, printable(path))


def printable(text: str) -> str:
    """A guest's string is hostile: what is no printable character is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
