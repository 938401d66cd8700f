"""`galleria serve`: the gallery for Azure's clients."""

import ipaddress
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapters.cli.context import Settings
from adapters.cli.lazy import Command
from adapters.config import state_directory
from adapters.text import fields
from pipeline.errors import EnvironmentMissing, InvalidParameter, Refused

if TYPE_CHECKING:
    from adapters.server.serve import Certificate


@click.command("serve", cls=Command)
@click.option(
    "--listen",
    default="127.0.0.1:8443",
    show_default=True,
    metavar="HOST:PORT",
    help="Address to listen on; port 0 takes any.",
)
@click.option(
    "--tls-cert",
    "chain",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Certificate with its chain, in PEM.",
)
@click.option(
    "--tls-key",
    "key",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Key of the certificate, in PEM.",
)
@click.option(
    "--self-signed",
    is_flag=True,
    help="Use a certificate of an authority that is made for this host.",
)
@click.pass_obj
def serve_command(
    settings: Settings, *, listen: str, chain: Path | None, key: Path | None, self_signed: bool
) -> None:
    """Serve the gallery by Azure's REST API.

    Callers log in as principals: galleria principal credential reset. Requests are logged to
    standard error.
    """
    host, port = _address(listen)
    try:
        from adapters.server import serve
    except ModuleNotFoundError as error:
        raise EnvironmentMissing(
            f"the server's libraries are not installed: {error}",
            hint="install galleria with its extra: galleria[server]",
        ) from error
    certificate: Certificate | None = None
    authority: Path | None = None
    if chain is not None and key is not None:
        certificate = serve.Certificate(chain, key)
    elif chain is not None or key is not None:
        raise InvalidParameter("--tls-cert and --tls-key are given together")
    elif self_signed:
        from adapters.server.certificates import self_signed as make

        certificate, authority = make(state_directory(os.environ) / "tls", host)
    elif not _is_loopback(host):
        raise Refused(
            f"{host} is not this host alone: secrets and tokens would be readable on the way",
            hint="give --tls-cert and --tls-key, or --self-signed",
        )
    with serve.listening(host, port) as listener:
        real = listener.getsockname()[1]
        scheme = "http" if certificate is None else "https"
        url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{real}"

        def ready() -> None:
            settings.emit({"url": url, "authority": authority}, _text(url, authority))
            sys.stdout.flush()

        with settings.served() as app:
            serve.serve(app, listener, certificate, ready)


def _text(url: str, authority: Path | None) -> str:
    rows = [("serving", url)]
    if authority is not None:
        rows.append(("trust", f"export REQUESTS_CA_BUNDLE={authority}"))
    if url.startswith("http:"):
        rows.append(("note", "Azure's clients send no token without TLS: --self-signed"))
    return fields(rows)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidParameter(f"--listen {text!r}: expected HOST:PORT, such as 127.0.0.1:8443")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - as asked for


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
