"""What a version's report is: JSON that is stored with it, and the digest that is part of its
record.
"""

import re
from collections.abc import Mapping
from typing import Any

from pipeline.data.text import printable

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


def redacted(path: str) -> str:
    """A path for the report, without the identities that are in it."""
    return IDENTITY.sub(REDACTED, printable(path))


def inherited(report: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """What a stored report still says of the same bytes under another name: not how they booted,
    what a cloud's checks said, or that somebody took them by force. Empty when the guest had not
    been looked at."""
    if "guest" not in report or "check" not in report:
        return {}
    kept = {key: item for key, item in report.items() if key not in ("boot", "validation")}
    check = {key: item for key, item in report["check"].items() if key != "forced"}
    return {**kept, "check": check, "copied_from": source}
