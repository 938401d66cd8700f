"""https: the certificate has to be the named host's, although the connection is made to an
address."""

import datetime
import hashlib
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from adapters.progress import Mode, open_progress
from adapters.sources.addresses import networks
from adapters.sources.download import Bounds, Downloads
from adapters.sources.http import DownloadFailed, Reach
from pipeline.errors import Refused
from pipeline.model.sources import UrlSource

CONTENT = b"a disk" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/down":
            self.send_response(302)
            self.send_header("Location", "http://files.example/disk")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""


class Server(ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that do not trust the certificate go away."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of files.example that has signed itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "files.example")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("files.example")]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


@pytest.fixture
def server(certificate: Path) -> Iterator[int]:
    made = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    made.socket = context.wrap_socket(made.socket, server_side=True)
    thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield int(made.server_address[1])
    made.shutdown()
    thread.join()
    made.server_close()


def fetch(url: str, directory: Path, trusted: Path | None) -> bytes:
    context = None if trusted is None else ssl.create_default_context(cafile=str(trusted))
    reach = Reach(
        networks("127.0.0.1/32"), lambda host, port: ["127.0.0.1"], 10.0, 10.0, tls=context
    )
    downloads = Downloads(directory / "cache", open_progress(Mode.NONE), reach, Bounds())
    with downloads.open(UrlSource(None, url, DIGEST)) as path:
        return path.read_bytes()


def test_a_trusted_host_is_read(server: int, certificate: Path, tmp_path: Path) -> None:
    assert fetch(f"https://files.example:{server}/disk", tmp_path, certificate) == CONTENT


def test_a_certificate_of_another_host_is_refused(
    server: int, certificate: Path, tmp_path: Path
) -> None:
    with pytest.raises(DownloadFailed, match="no connection"):
        fetch(f"https://other.example:{server}/disk", tmp_path, certificate)
    with pytest.raises(DownloadFailed, match="no connection"):
        fetch(f"https://127.0.0.1:{server}/disk", tmp_path, certificate)


def test_an_unknown_authority_is_refused(server: int, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(f"https://files.example:{server}/disk", tmp_path, None)


def test_https_does_not_lead_to_http(server: int, certificate: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="from https to http"):
        fetch(f"https://files.example:{server}/down", tmp_path, certificate)
