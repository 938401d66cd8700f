"""The digest of a document."""

import json
from collections.abc import Mapping
from typing import Any

from blake3 import blake3


def digest(report: Mapping[str, Any]) -> str:
    """BLAKE3 of the report's canonical form, in hexadecimal: it is the same after any way through
    JSON (RFC 8785's rules for what occurs here: sorted keys, no blanks, UTF-8; no fractions)."""
    text = json.dumps(report, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return blake3(text.encode("utf-8", "surrogatepass")).hexdigest()
