"""Log in: OAuth2 client credentials, and the documents by which Azure's clients find them.

msal asks Microsoft's own servers about an authority that it does not know, unless its path is
`/adfs`: so that is what is told of. Tenants are accepted in its place, and behind it.
"""

from typing import Any
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from adapters.server.callers import Callers
from adapters.text import printable
from pipeline.errors import Unauthenticated
from pipeline.model.clock import utc_now
from pipeline.model.names import DEFAULT_TENANT

MAX_FORM = 64 << 10  # bytes
_MAX_FIELDS = 32

# What Azure's error descriptions begin with: people search for these numbers.
_DESCRIPTIONS = {
    "InvalidSecret": "AADSTS7000215: Invalid client secret provided.",
    "ExpiredSecret": "AADSTS7000222: The provided client secret is expired.",
}
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


def routes(callers: Callers) -> list[BaseRoute]:
    async def token(request: Request) -> Response:
        form = dict(parse_qsl(await request.body(), max_num_fields=_MAX_FIELDS))
        fields = {
            key.decode("utf-8", "replace"): value.decode("utf-8", "replace")
            for key, value in form.items()
        }
        return await run_in_threadpool(_token, request, fields, callers)

    found: list[BaseRoute] = [Route("/metadata/endpoints", _endpoints)]
    for authority in ("/adfs", "/adfs/{tenant}", "/{tenant}"):
        for version in ("/oauth2/v2.0", "/oauth2"):
            path = f"{authority}{version}/token"
            found.append(Route(path, token, methods=["POST"], max_body_size=MAX_FORM))
        for version in ("/v2.0", ""):
            path = f"{authority}{version}/.well-known/openid-configuration"
            found.append(Route(path, _configuration))
    return found


def _token(request: Request, form: dict[str, str], callers: Callers) -> JSONResponse:
    """Give a token for a principal's secret."""
    if form.get("grant_type") != "client_credentials":
        return _refused(
            "unsupported_grant_type",
            "AADSTS70003: The app requested an unsupported grant type "
            f"'{printable(form.get('grant_type', '')[:80])}': client_credentials is supported.",
        )
    tenant = request.path_params.get("tenant", "adfs")
    try:
        token, given = callers.logins.log_in(
            form.get("client_id", ""), form.get("client_secret", ""), tenant
        )
    except Unauthenticated as error:
        text = f"{_DESCRIPTIONS.get(error.reason, '')} {error.message}".strip()
        return _refused("invalid_client", text, 401)
    now = utc_now()
    seconds = max(0, int((given.expires - now).total_seconds()))
    document: dict[str, Any] = {
        "token_type": "Bearer",
        "expires_in": seconds,
        "ext_expires_in": seconds,
        "access_token": token,
    }
    if "v2.0" not in request.url.path:  # the older form tells times as texts
        document |= {
            "expires_in": str(seconds),
            "expires_on": str(int(given.expires.timestamp())),
            "not_before": str(int(now.timestamp())),
            "resource": form.get("resource", ""),
        }
    return JSONResponse(document, headers=_NO_STORE)


def _refused(error: str, description: str, status: int = 400) -> JSONResponse:
    document = {"error": error, "error_description": description}
    return JSONResponse(document, status, _NO_STORE)


async def _configuration(request: Request) -> JSONResponse:
    """OpenID's discovery document: where the token is."""
    base = str(request.base_url).rstrip("/")
    authority = base + request.url.path.partition("/.well-known/")[0].removesuffix("/v2.0")
    return JSONResponse(
        {
            "issuer": authority,
            "authorization_endpoint": f"{authority}/oauth2/v2.0/authorize",
            "token_endpoint": f"{authority}/oauth2/v2.0/token",
            "jwks_uri": f"{base}/discovery/keys",
            "response_types_supported": ["token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [],
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
        }
    )


async def _endpoints(request: Request) -> JSONResponse:
    """The description of this cloud: newer clients read one object, older ones a list."""
    base = str(request.base_url).rstrip("/")
    cloud = {
        "name": "galleria",
        "resourceManager": base,
        "portal": base,
        "authentication": {
            "loginEndpoint": f"{base}/adfs",
            "audiences": [base],
            "tenant": DEFAULT_TENANT,
            "identityProvider": "AAD",
        },
        "graph": base,
        "graphAudience": base,
        "microsoftGraphResourceId": base,
        "gallery": base,
        "batch": base,
        "media": base,
        "sqlManagement": base,
        "vmImageAliasDoc": base,
        "suffixes": {
            "storage": request.url.hostname or "",
            "acrLoginServer": "",
            "keyVaultDns": "",
            "sqlServerHostname": "",
        },
    }
    listed = request.query_params.get("api-version", "") < "2022-09-01"
    return JSONResponse([cloud] if listed else cloud)
