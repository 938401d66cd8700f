"""What the firmware of a version's VMs trusts."""

from dataclasses import dataclass

from pipeline.model.kinds import SignatureTemplate, SignatureType


@dataclass(frozen=True, slots=True)
class UefiKey:
    """Signatures of one type, in base64: certificates in DER, or digests of 32 bytes."""

    type: SignatureType
    value: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UefiKeySignatures:
    """What is added to the variables of Secure Boot: the platform key (at most one), those that may
    change the others, those that are trusted, those that are not."""

    pk: UefiKey | None = None
    kek: tuple[UefiKey, ...] = ()
    db: tuple[UefiKey, ...] = ()
    dbx: tuple[UefiKey, ...] = ()


@dataclass(frozen=True, slots=True)
class UefiSettings:
    """What a Trusted Launch VM starts with."""

    signature_template_names: tuple[SignatureTemplate, ...] = ()
    additional_signatures: UefiKeySignatures = UefiKeySignatures()


@dataclass(frozen=True, slots=True)
class SecurityProfile:
    uefi_settings: UefiSettings = UefiSettings()
