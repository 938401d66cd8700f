"""Secrets and tokens, over every catalog: who gets in, until when, and what is kept."""

import contextlib
from datetime import timedelta

import pytest

from pipeline.errors import AuthorizationFailed, InvalidParameter, NotFound, Unauthenticated
from pipeline.gallery.access.credentials import LASTING, Logins
from pipeline.model.access import Assignment, Principal, PrincipalKind, Role
from pipeline.ports.catalog import Catalog
from tests.samples import NOW, services

YEAR = timedelta(days=365)
TENANT, OTHER = "11111111-2222-3333-4444-555555555555", "66666666-2222-3333-4444-555555555555"
CI = Principal("ci", PrincipalKind.SERVICE_PRINCIPAL, TENANT, guest_of=(OTHER,))


@pytest.fixture
def filled(catalog: Catalog) -> Catalog:
    with catalog.write() as writer:
        writer.put_principal(CI)
        writer.put_principal(Principal("team", PrincipalKind.GROUP))
        writer.put_principal(Principal("reader"))
        writer.put_assignment(Assignment("reader", Role.READER, "/"))
    return catalog


def logins(catalog: Catalog, after: timedelta = timedelta()) -> Logins:
    return Logins(catalog, lambda: NOW + after)


def test_a_secret_gives_a_token_and_the_token_tells_who(filled: Catalog) -> None:
    secret, made = services(catalog=filled).grants.reset_credential("CI", NOW + YEAR)
    assert made.principal == "ci"
    for tenant in (TENANT, TENANT.upper(), OTHER, "adfs", "common", "organizations"):
        token, given = logins(filled).log_in("Ci", secret, tenant)
        assert given.expires == NOW + LASTING
        assert logins(filled).principal_of(token) == "ci"
    assert logins(filled).principal_of(secret) == "ci"
    assert len(secret) > 43


def test_only_digests_are_kept(filled: Catalog) -> None:
    secret, _ = services(catalog=filled).grants.reset_credential("ci", NOW + YEAR)
    token, given = logins(filled).log_in("ci", secret, "adfs")
    with filled.read() as reader:
        kept = [reader.credentials("ci"), reader.token(given.digest), *reader.audit()]
    assert secret not in str(kept)
    assert token not in str(kept)


@pytest.mark.parametrize(
    ("name", "tenant", "change"),
    [
        ("ci", "adfs", "x"),
        ("reader", "adfs", ""),
        ("nobody", "adfs", ""),
        ("", "adfs", ""),
        ("ci", "99999999-2222-3333-4444-555555555555", ""),
    ],
)
def test_who_is_not_let_in(filled: Catalog, name: str, tenant: str, change: str) -> None:
    """One text for all: it tells nobody which principals and tenants there are."""
    secret, _ = services(catalog=filled).grants.reset_credential("ci", NOW + YEAR)
    with pytest.raises(Unauthenticated, match="no such principal with this secret") as caught:
        logins(filled).log_in(name, secret + change, tenant)
    assert caught.value.reason == "InvalidSecret"


@pytest.mark.parametrize("bearer", ["", "x", "galleria-token-x", "galleria-secret-x"])
def test_what_is_no_token(filled: Catalog, bearer: str) -> None:
    with pytest.raises(Unauthenticated):
        logins(filled).principal_of(bearer)


def test_secrets_and_tokens_expire(filled: Catalog) -> None:
    secret, _ = services(catalog=filled).grants.reset_credential("ci", NOW + YEAR)
    token, _ = logins(filled).log_in("ci", secret, "adfs")
    second = timedelta(seconds=1)
    assert logins(filled, LASTING - second).principal_of(token) == "ci"
    with pytest.raises(Unauthenticated) as late:
        logins(filled, LASTING).principal_of(token)
    assert late.value.reason == "ExpiredAuthenticationToken"
    # near its end a secret gives a token that ends with it
    _, given = logins(filled, YEAR - second).log_in("ci", secret, "adfs")
    assert given.expires == NOW + YEAR
    for bearer in (secret, token):
        with pytest.raises(Unauthenticated):
            logins(filled, YEAR).principal_of(bearer)
    with pytest.raises(Unauthenticated) as expired:
        logins(filled, YEAR).log_in("ci", secret, "adfs")
    assert expired.value.reason == "ExpiredSecret"


def test_expired_tokens_are_forgotten(filled: Catalog) -> None:
    secret, _ = services(catalog=filled).grants.reset_credential("ci", NOW + YEAR)
    _, old = logins(filled).log_in("ci", secret, "adfs")
    _, new = logins(filled, LASTING + timedelta(minutes=1)).log_in("ci", secret, "adfs")
    with filled.read() as reader:
        assert reader.token(old.digest) is None
        assert reader.token(new.digest) == new


def test_a_reset_ends_the_other_secrets_and_their_tokens(filled: Catalog) -> None:
    grants = services(catalog=filled).grants
    first, _ = grants.reset_credential("ci", NOW + YEAR)
    token, _ = logins(filled).log_in("ci", first, "adfs")
    kept, _ = grants.reset_credential("ci", NOW + YEAR, append=True, display_name="build")
    assert logins(filled).principal_of(token) == "ci"
    assert [item.display_name for item in grants.credentials("ci")] == ["", "build"]
    last, _ = grants.reset_credential("ci", NOW + YEAR)
    for bearer in (first, token, kept):
        with pytest.raises(Unauthenticated):
            logins(filled).principal_of(bearer)
    assert logins(filled).principal_of(last) == "ci"


def test_a_secret_is_deleted_with_its_tokens(filled: Catalog) -> None:
    grants = services(catalog=filled).grants
    secret, made = grants.reset_credential("ci", NOW + YEAR)
    token, _ = logins(filled).log_in("ci", secret, "adfs")
    with pytest.raises(NotFound, match="has no credential"):
        grants.delete_credential("reader", made.id)
    grants.delete_credential("ci", made.id.upper())
    assert grants.credentials("ci") == []
    for bearer in (secret, token):
        with pytest.raises(Unauthenticated):
            logins(filled).principal_of(bearer)


def test_secrets_go_with_the_principal(filled: Catalog) -> None:
    grants = services(catalog=filled).grants
    secret, _ = grants.reset_credential("ci", NOW + YEAR)
    token, _ = logins(filled).log_in("ci", secret, "adfs")
    grants.delete_principal("ci")
    grants.put_principal(CI)
    for bearer in (secret, token):
        with pytest.raises(Unauthenticated):
            logins(filled).principal_of(bearer)


def test_changes_of_a_principal_leave_its_secrets(filled: Catalog) -> None:
    grants = services(catalog=filled).grants
    secret, _ = grants.reset_credential("ci", NOW + YEAR)
    grants.put_principal(Principal("CI", PrincipalKind.SERVICE_PRINCIPAL, OTHER))
    assert logins(filled).log_in("ci", secret, OTHER)


def test_who_may_make_secrets_and_whose(filled: Catalog) -> None:
    grants = services(catalog=filled, principal="reader").grants
    assert grants.credentials("ci") == []
    with pytest.raises(AuthorizationFailed):
        grants.reset_credential("reader", NOW + YEAR)
    with pytest.raises(AuthorizationFailed):
        grants.delete_credential("ci", "x")
    grants = services(catalog=filled).grants
    for name, error in (("team", InvalidParameter), ("nobody", NotFound)):
        with pytest.raises(error):
            grants.reset_credential(name, NOW + YEAR)
    with pytest.raises(InvalidParameter, match="expired already"):
        grants.reset_credential("ci", NOW)


def test_secrets_are_on_record(filled: Catalog) -> None:
    grants = services(catalog=filled).grants
    _, made = grants.reset_credential("ci", NOW + YEAR)
    with contextlib.suppress(NotFound):
        grants.delete_credential("ci", made.id)
    with filled.read() as reader:
        found = [(entry.content["action"], entry.content["details"]) for entry in reader.audit()]
    base = "Microsoft.Authorization/principals/credentials"
    assert found[-2:] == [(f"{base}/write", made.id), (f"{base}/delete", made.id)]
