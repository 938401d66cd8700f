"""How a gallery is shared beyond roles: its sharing profile."""

from dataclasses import dataclass

from pipeline.model import SharingPermissions
from pipeline.model.names import GalleryName


@dataclass(frozen=True, slots=True)
class Community:
    """How a community gallery presents itself. `public_name` is empty until it is enabled."""

    publisher_uri: str
    publisher_contact: str  # an e-mail address
    eula: str
    public_name_prefix: str
    public_name: str = ""


@dataclass(frozen=True, slots=True)
class Sharing:
    """A gallery's sharing profile. GUIDs are in lower case."""

    gallery: GalleryName
    permissions: SharingPermissions = SharingPermissions.PRIVATE
    subscriptions: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    community: Community | None = None

    @property
    def public_name(self) -> str:
        """Empty unless it is public."""
        return "" if self.community is None else self.community.public_name

    @property
    def is_public(self) -> bool:
        return bool(self.public_name)

    @property
    def is_shared(self) -> bool:
        return bool(self.subscriptions or self.tenants or self.is_public)
