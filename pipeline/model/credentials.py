"""Secrets by which principals log in, and the tokens that they get for them. Of either only a
digest is kept."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret of a principal. galleria made it, of 256 random bits: `digest` is BLAKE3 of it, as
    there is nothing that a slow hash would make harder to guess. `id` tells it from others."""

    id: str
    principal: str
    digest: str
    created: datetime
    expires: datetime
    display_name: str = ""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What a credential was exchanged for. It goes with the credential."""

    digest: str
    credential: str
    principal: str
    expires: datetime
