"""A version's own keys: what may be given, and that the firmware of its VMs has them."""

import base64
import hashlib
import json
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from adapters.process import command
from adapters.vms.signatures import enroll
from pipeline.errors import EnvironmentMissing, InvalidParameter
from pipeline.gallery import rules
from pipeline.gallery.documents import decode, encode
from pipeline.model import (
    Feature,
    SecurityProfile,
    SignatureType,
    UefiKey,
    UefiKeySignatures,
    UefiSettings,
)
from tests.samples import NOW, definition, request

TRUSTED = definition(features=(Feature("SecurityType", "TrustedLaunch"),))
TEMPLATES = (Path("/usr/share/OVMF/OVMF_VARS_4M.fd"), Path("/usr/share/edk2/ovmf/OVMF_VARS.fd"))
HASH = hashlib.sha256(b"a loader").digest()


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def certificate(name: str) -> bytes:
    """A self-signed one, in DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(called)
        .issuer_name(called)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.DER)


def certificates(*names: str) -> UefiKey:
    return UefiKey(SignatureType.X509, tuple(text(certificate(name)) for name in names))


DIGEST = UefiKey(SignatureType.SHA256, (text(HASH),))
ALL = UefiKeySignatures(
    certificates("platform"),
    (certificates("exchange"),),
    (certificates("vendor", "other"), DIGEST),
    (DIGEST,),
)


def check(signatures: UefiKeySignatures, made: object = TRUSTED) -> None:
    profile = SecurityProfile(UefiSettings(additional_signatures=signatures))
    rules.version_request(request(security_profile=profile), made, NOW)  # type: ignore[arg-type]


def test_they_are_kept_as_azure_writes_them() -> None:
    check(ALL)
    document = encode(ALL)
    assert document["dbx"] == [{"type": "sha256", "value": [text(HASH)]}]
    assert decode(UefiKeySignatures, json.loads(json.dumps(document))) == ALL
    assert encode(UefiSettings()) == {}


@pytest.mark.parametrize(
    ("signatures", "told"),
    [
        (UefiKeySignatures(DIGEST), "'.*pk' takes certificates"),
        (UefiKeySignatures(certificates("a", "b")), "exactly one certificate"),
        (UefiKeySignatures(kek=(DIGEST,)), "'.*kek' takes certificates"),
        (UefiKeySignatures(db=(UefiKey(SignatureType.X509, (text(HASH[:5]),)),)), "not a certif"),
        (UefiKeySignatures(dbx=(UefiKey(SignatureType.SHA256, ("AAAA",)),)), "not a digest of 32"),
        (UefiKeySignatures(dbx=(UefiKey(SignatureType.SHA256, ("no base64!",)),)), "base64"),
        (
            UefiKeySignatures(db=(UefiKey(SignatureType.SHA256, (text(HASH),) * 65),)),
            "more than 64",
        ),
    ],
)
def test_what_no_variable_can_hold_is_refused(signatures: UefiKeySignatures, told: str) -> None:
    with pytest.raises(InvalidParameter, match=told):
        check(signatures)


def test_they_need_secure_boot() -> None:
    with pytest.raises(InvalidParameter, match="do not start with Secure Boot"):
        check(ALL, definition())


def test_the_firmware_s_variables_have_them(tmp_path: Path) -> None:
    template = next((path for path in TEMPLATES if path.exists()), None)
    if template is None:
        pytest.skip("no OVMF here")
    nvram = tmp_path / "nvram.fd"
    shutil.copy(template, nvram)
    enroll(UefiKeySignatures(), nvram)
    assert nvram.read_bytes() == template.read_bytes()
    enroll(ALL, nvram)
    content = nvram.read_bytes()
    assert len(content) == template.stat().st_size
    keys = [key for key in (ALL.pk, *ALL.kek, ALL.db[0]) if key is not None]
    for value in (value for key in keys for value in key.value):
        assert content.count(base64.b64decode(value)) == 1
    assert content.count(HASH) == 2  # in db and in dbx
    for name in ("PK", "KEK", "db", "dbx"):
        assert (name + "\0").encode("utf-16-le") in content


def test_without_the_tool_nothing_is_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    monkeypatch.setattr(command, "PATH", str(tmp_path))
    with pytest.raises(EnvironmentMissing, match="virt-fw-vars is not installed"):
        enroll(ALL, tmp_path / "nvram.fd")
