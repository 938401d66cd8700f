"""Whose keys the firmware of a version's VMs may trust."""

import base64
import binascii
from collections.abc import Sequence

from pipeline.errors import InvalidParameter
from pipeline.model import (
    ImageDefinition,
    SignatureTemplate,
    SignatureType,
    UefiKey,
    UefiKeySignatures,
)

SHA256_LENGTH = 32
MAX_SIGNATURES = 64  # of one variable; a store of 256 KiB holds Microsoft's and these
_PATH = "securityProfile.uefiSettings.additionalSignatures"
_SEQUENCE = 0x30  # what a certificate in DER begins with (X.690)


def signature_templates(names: Sequence[SignatureTemplate]) -> None:
    """No template stands alone: whoever starts without keys does not start with some."""
    if SignatureTemplate.NONE in names and set(names) != {SignatureTemplate.NONE}:
        listed = ", ".join(name.value for name in names)
        raise InvalidParameter(
            f"The signatureTemplateNames '{listed}' exclude each other.",
            hint=f"{SignatureTemplate.NONE.value} stands alone",
        )


def secure_boot(definition: ImageDefinition) -> bool:
    """Whether VMs of the definition start with Secure Boot: those of Trusted Launch do."""
    wanted = {"trustedlaunch", "trustedlaunchandconfidentialvmsupported", "confidentialvm"}
    return any(
        feature.name.lower() == "securitytype" and feature.value.lower() in wanted
        for feature in definition.features
    )


def additional_signatures(signatures: UefiKeySignatures, definition: ImageDefinition) -> None:
    """Keys are of use where there is Secure Boot. PK and KEK hold certificates alone (UEFI 2.10,
    32.3); each value is base64."""
    if signatures == UefiKeySignatures():
        return
    if not secure_boot(definition):
        raise InvalidParameter(
            f"The property '{_PATH}' is not allowed: VMs of '{definition.name}' do not start with "
            "Secure Boot.",
            hint="use a definition with --features SecurityType=TrustedLaunch",
        )
    platform = () if signatures.pk is None else (signatures.pk,)
    if any(len(key.value) != 1 for key in platform):
        raise InvalidParameter(f"The property '{_PATH}.pk' has exactly one certificate.")
    for name, keys in (
        ("pk", platform),
        ("kek", signatures.kek),
        ("db", signatures.db),
        ("dbx", signatures.dbx),
    ):
        if sum(len(key.value) for key in keys) > MAX_SIGNATURES:
            raise InvalidParameter(f"'{_PATH}.{name}' has more than {MAX_SIGNATURES} signatures.")
        for key in keys:
            if name in ("pk", "kek") and key.type is not SignatureType.X509:
                raise InvalidParameter(f"'{_PATH}.{name}' takes certificates (x509) alone.")
            for value in key.value:
                _check(value, key, f"{_PATH}.{name}")


def _check(value: str, key: UefiKey, path: str) -> None:
    try:
        content = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    digest = key.type is SignatureType.SHA256
    if len(content) == SHA256_LENGTH if digest else content[:1] == bytes([_SEQUENCE]):
        return
    wanted = "a digest of 32 bytes" if digest else "a certificate in DER"
    raise InvalidParameter(
        f"Cannot bind parameter {path}: a value of type {key.type.value} is not {wanted}, in "
        "base64."
    )
