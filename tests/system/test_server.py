"""`galleria serve`: who is let in, and what holds for every request."""

import signal
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ClientSecretCredential
from prometheus_client.parser import text_string_to_metric_families

from tests.azure import SUBSCRIPTION, TENANT, Server, serving
from tests.home import Home, conforms

pytestmark = pytest.mark.system

SCOPE = "https://management.azure.com/.default"  # whatever a client asks for


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("home"))
    made.run("init", "--region", f"eu={made.path}/eu", "--region", f"UK South={made.path}/uk")
    made.run("principal", "create", "ci", "--type", "ServicePrincipal")
    made.run("role", "assign", "--assignee", "ci", "--role", "Owner", "--scope", "/")
    return made


@pytest.fixture(scope="module")
def secret(home: Home) -> str:
    made = home.json("principal", "credential", "reset", "ci")
    assert (made["appId"], made["tenant"]) == ("ci", TENANT)
    return str(made["password"])


@pytest.fixture(scope="module")
def server(home: Home) -> Iterator[Server]:
    with serving(home) as made:
        conforms(["serve"], made.said)
        yield made


class Reply:
    def __init__(self, status: int, headers: Any, content: bytes) -> None:
        self.status, self.headers, self.content = status, headers, content


def ask(server: Server, path: str, **headers: str) -> Reply:
    request = urllib.request.Request(server.url + path, headers=headers)  # noqa: S310
    trusting = ssl.create_default_context(cafile=server.authority)
    try:
        with urllib.request.urlopen(request, context=trusting) as answer:  # noqa: S310
            return Reply(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.headers, error.read())


WAYS: list[tuple[str, str, dict[str, Any]]] = [
    ("adfs", "", {}),
    (TENANT, "/adfs", {}),
    (TENANT, "", {"disable_instance_discovery": True}),
]


@pytest.mark.parametrize(("tenant", "path", "more"), WAYS)
def test_azure_identity_logs_in(
    server: Server, secret: str, tenant: str, path: str, more: dict[str, Any]
) -> None:
    with ClientSecretCredential(
        tenant,
        "ci",
        secret,
        authority=server.url + path,
        connection_verify=server.authority,
        **more,
    ) as credential:
        token = credential.get_token(SCOPE).token
    reply = ask(server, "/subscriptions?api-version=2022-12-01", Authorization=f"Bearer {token}")
    assert reply.status == 200
    assert SUBSCRIPTION.encode() in reply.content


def test_a_wrong_secret_is_told_as_azure_does(server: Server, secret: str) -> None:
    with (
        ClientSecretCredential(
            "adfs", "ci", secret + "x", authority=server.url, connection_verify=server.authority
        ) as credential,
        pytest.raises(ClientAuthenticationError, match="AADSTS7000215: Invalid client secret"),
    ):
        credential.get_token(SCOPE)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Basic Y2k6eA=="},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer x"},
        {"Authorization": "Bearer a b"},
    ],
)
def test_nobody_gets_in_without_a_token(server: Server, headers: dict[str, str]) -> None:
    reply = ask(server, "/subscriptions?api-version=2022-12-01", **headers)
    assert reply.status == 401
    assert reply.headers["WWW-Authenticate"].startswith("Bearer authorization_uri=")
    assert b'"code":' in reply.content


def test_paths_compare_as_azures(server: Server, secret: str) -> None:
    for path in ("/subscriptions", "/Subscriptions/", "//SUBSCRIPTIONS//"):
        reply = ask(server, f"{path}?api-version=2022-12-01", Authorization=f"Bearer {secret}")
        assert reply.status == 200, path


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/subscriptions", 400, "MissingApiVersionParameter"),
        ("/subscriptions?api-version=x", 400, "InvalidApiVersionParameter"),
        ("/nothing?api-version=2022-12-01", 404, "NotFound"),
        (f"/subscriptions/{TENANT[:-1]}1?api-version=2022-12-01", 404, "SubscriptionNotFound"),
        (f"/subscriptions/{TENANT[:-1]}?api-version=2022-12-01", 404, "SubscriptionNotFound"),
    ],
)
def test_what_is_refused(server: Server, secret: str, path: str, status: int, code: str) -> None:
    reply = ask(server, path, Authorization=f"Bearer {secret}")
    assert (reply.status, f'"{code}"'.encode() in reply.content) == (status, True), reply.content


def test_requests_are_numbered_and_logged(server: Server, secret: str) -> None:
    reply = ask(
        server,
        "/tenants?api-version=2022-12-01",
        Authorization=f"Bearer {secret}",
        **{"x-ms-client-request-id": "mine"},
    )
    number = reply.headers["x-ms-request-id"]
    assert reply.headers["x-ms-client-request-id"] == "mine"
    (line,) = (line for line in server.lines() if line["request"] == number)
    assert (line["method"], line["path"], line["status"]) == ("GET", "/tenants", 200)
    assert secret not in server.log.read_text()


def test_metrics_and_boxes_are_for_those_who_may(server: Server, secret: str) -> None:
    for path in ("/metrics", "/vagrant/"):
        assert ask(server, path).status == 401
        assert ask(server, path, Authorization=f"Bearer {secret}").status == 200
    text = ask(server, "/metrics", Authorization=f"Bearer {secret}").content.decode()
    families = {item.name: item for item in text_string_to_metric_families(text)}
    assert families["galleria_galleries"].type == "gauge"
    counted = {
        (sample.labels["method"], sample.labels["status"]): sample.value
        for sample in families["galleria_http_requests"].samples
    }
    assert counted["GET", "401"] >= 2


def test_it_is_ready(server: Server) -> None:
    assert (ask(server, "/readyz").status, ask(server, "/readyz").content) == (200, b"ok\n")


def test_it_ends_in_good_order(home: Home) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with serving(home) as server:
            assert ask(server, "/healthz").content == b"ok\n"
            assert server.stop(number) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--listen", "0.0.0.0:0"), "--self-signed"),
        (("--listen", "nonsense"), "expected HOST:PORT"),
        (("--tls-cert", __file__), "given together"),
        (("--tls-cert", __file__, "--tls-key", __file__), "certificate can't be used"),
    ],
)
def test_what_is_not_served(home: Home, options: tuple[str, ...], said: str) -> None:
    options = options if "--listen" in options else ("--listen", "127.0.0.1:0", *options)
    status = {"0.0.0.0:0": 6, "nonsense": 2}.get(options[1], 2 if "--tls-key" not in options else 3)
    assert said in home.run("serve", *options, status=status).stderr


def test_keys_are_private(server: Server, home: Home) -> None:
    directory = Path(server.authority).parent
    assert {file.name: file.stat().st_mode & 0o777 for file in directory.glob("*.key")} == {
        "authority.key": 0o600,
        "server.key": 0o600,
    }
