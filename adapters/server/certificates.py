"""A certificate for hosts that have none: signed by an authority of this host's own, which is made
once and which clients are told to trust."""

import contextlib
import ipaddress
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from adapters.filesystem import durable
from adapters.server.serve import Certificate

AUTHORITY = timedelta(days=3650)
LASTING = timedelta(days=397)  # a certificate: what clients take at most
_EARLIER = timedelta(hours=1)  # clocks differ

_PRIVATE = 0o600
_PUBLIC = 0o644


def self_signed(directory: Path, host: str) -> tuple[Certificate, Path]:
    """A new certificate for this host, and the file of the authority that signed it."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    key_file, file = directory / "authority.key", directory / "authority.pem"
    if not (key_file.exists() and file.exists()):
        _make_authority(key_file, file)
    signer = serialization.load_pem_private_key(key_file.read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)  # noqa: S101 - made here
    authority = x509.load_pem_x509_certificate(file.read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    made = _signed(key.public_key(), _names(host), authority, signer)
    certificate = Certificate(directory / "server.pem", directory / "server.key")
    _write(certificate.key, _pem(key), _PRIVATE)
    chain = made.public_bytes(serialization.Encoding.PEM)
    _write(certificate.chain, chain + file.read_bytes(), _PUBLIC)
    return certificate, file


def _names(host: str) -> list[x509.GeneralName]:
    """What clients may call this host."""
    names = {"localhost", socket.gethostname(), socket.getfqdn()}
    addresses = {ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")}
    try:
        addresses.add(ipaddress.ip_address(host))
    except ValueError:
        names.add(host)
    found: list[x509.GeneralName] = [x509.IPAddress(item) for item in sorted(addresses, key=str)]
    for name in sorted(names):
        with contextlib.suppress(ValueError):  # names that are not in ASCII
            found.append(x509.DNSName(name))
    return found


def _make_authority(key_file: Path, file: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"galleria on {socket.gethostname()}"[:64])]
    )
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + AUTHORITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(key_file, _pem(key), _PRIVATE)
    _write(file, certificate.public_bytes(serialization.Encoding.PEM), _PUBLIC)


def _signed(
    key: ec.EllipticCurvePublicKey,
    names: list[x509.GeneralName],
    authority: x509.Certificate,
    signer: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    now = datetime.now(UTC)
    known = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "galleria")]))
        .issuer_name(authority.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(min(now + LASTING, authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(purpose, critical=False)
        .add_extension(known, critical=False)
        .sign(signer, hashes.SHA256())
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(file: Path, content: bytes, mode: int) -> None:
    durable.write_file(file, content, mode=mode, overwrite=True)
