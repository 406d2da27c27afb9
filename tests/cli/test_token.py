"""`guard token` and `guard acts`: roles, tokens that stop counting, and what is written down."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from guard.cli._service import operator
from guard.core.roles import Role
from guard.core.states import Verdict
from guard.settings import Secret
from tests import people
from tests.cli.conftest import Answer, Service

Cli = Callable[..., Answer]
REFUSED = 4


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda token: monkeypatch.setenv("GUARD_TOKEN", token)


def acts(cli: Cli) -> list[tuple[str, str, str]]:
    """What people did; which policy decides is recorded by the guard itself."""
    rows = json.loads(cli("acts", "list", "--format", "json").out)
    of_people = [row for row in rows if row["act"] != "policy_change"]
    return [(row["act"], row["principal"], row["role"]) for row in of_people]


def test_the_first_operator_is_made_once_and_only_where_nobody_is(
    service: Service, cli: Cli, show: Callable[[str], None]
) -> None:
    assert service.guard is not None
    assert cli("token", "create", "eve", "--role", "reviewer", "--first").code == REFUSED
    assert cli("token", "create", "eve", "--role", "operator").code == REFUSED
    first = cli("token", "create", "root", "--role", "operator", "--first")
    again = cli("token", "create", "eve", "--role", "operator", "--first")

    assert (first.code, again.code, again.out) == (0, REFUSED, "")
    show(first.out.strip())
    assert cli("token", "create", "ann", "--role", "reviewer").code == 0
    assert cli("token", "revoke", "root").code == 0
    # Nobody is left in force, and that is not "nobody yet".
    assert cli("token", "create", "eve", "--role", "operator", "--first").code == REFUSED
    assert acts(cli) == [
        ("token_revoke", "root", "operator"),
        ("token_create", "root", "operator"),
        ("token_create", operator(), ""),
    ]


@pytest.mark.parametrize("role", [None, *Role])
@pytest.mark.parametrize(
    ("act", "allowed"),
    [
        ("approve", {Role.REVIEWER}),
        ("reject", {Role.REVIEWER}),
        ("publish", {Role.OPERATOR}),
        ("withdraw", {Role.OPERATOR}),
        ("token_create", {Role.OPERATOR}),
        ("token_revoke", {Role.OPERATOR}),
        ("owner_remove", {Role.OPERATOR}),
    ],
)
def test_each_role_does_its_own_acts_and_no_other(
    role: Role | None,
    act: str,
    allowed: set[Role],
    service: Service,
    cli: Cli,
    show: Callable[[str], None],
) -> None:
    guard = service.guard
    token = people.give(guard, "bob", role or Role.VIEWER)
    people.give(guard, "cy", Role.UPLOADER, prefixes=["models/models/cy"])
    if role is not None:
        show(token)
    scan = service.scan(Verdict.CLEARED if act == "publish" else Verdict.HELD)
    calls = {
        "approve": ("review", "approve", scan.id, "--reason", "seen"),
        "reject": ("review", "reject", scan.id, "--reason", "seen"),
        "publish": ("publish", scan.id),
        "withdraw": ("withdraw", scan.canonical_digest, "--reason", "stolen"),
        "token_create": ("token", "create", "dan", "--role", "viewer"),
        "token_revoke": ("token", "revoke", "cy"),
        "owner_remove": ("token", "disown", "cy", "models/models/cy"),
    }
    before = acts(cli)
    answer = cli(*calls[act])

    if role in allowed:
        assert (answer.code, answer.err.count("guard:")) == (0, 0), answer.err
        assert acts(cli) == [(act, "bob", str(role)), *before]
    else:
        assert (answer.code, answer.out) == (REFUSED, "")
        assert acts(cli) == before


@pytest.mark.parametrize("role", Role)
def test_submitting_is_for_operators_and_for_the_owners_of_the_prefix(
    role: Role, service: Service, cli: Cli, show: Callable[[str], None]
) -> None:
    show(people.give(service.guard, "bob", role, prefixes=["models/models/bob"]))

    own = cli("submit", "s3://models/models/bob/m.pt").code
    other = cli("submit", "s3://models/models/bobby/m.pt").code

    assert own == (0 if role in (Role.UPLOADER, Role.OPERATOR) else REFUSED)
    assert other == (0 if role is Role.OPERATOR else REFUSED)


def test_a_wrong_expired_or_revoked_token_does_nothing(
    service: Service, cli: Cli, show: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = service.guard
    held = service.scan(Verdict.HELD)
    token = people.give(guard, "bob", Role.REVIEWER, days=1)
    approve = ("review", "approve", held.id, "--reason", "seen")

    for wrong in (f"{token[:-2]}xx", "guard_x", "x", token.upper(), f"{token} "[:-2]):
        show(wrong)
        assert cli(*approve).code == REFUSED
    show(token)
    later = replace(guard, now=lambda: guard.now() + timedelta(days=1))
    monkeypatch.setattr("guard.bootstrap.open_guard", lambda _settings=None: later)
    assert cli(*approve).code == REFUSED
    monkeypatch.setattr("guard.bootstrap.open_guard", lambda _settings=None: guard)
    root = people.who(guard, "ops", Role.OPERATOR)
    from guard.flow import tokens

    tokens.revoke(guard, root, "bob")
    for _again in range(2):
        answer = cli(*approve)
        assert (answer.code, answer.out) == (REFUSED, "")
    assert cli("review", "list").out != "none\n"
    # A new token of the same principal counts; the old one stays dead.
    show(people.give(guard, "bob", Role.REVIEWER))
    assert cli(*approve).code == 0
    show(token)
    assert cli(*approve).code == REFUSED


def test_the_list_shows_no_secret_and_when_a_token_was_used(
    service: Service, cli: Cli, show: Callable[[str], None]
) -> None:
    token = people.give(service.guard, "bob", Role.VIEWER, prefixes=["models/models/bob"])
    show(token)
    cli("publish", "abcd")
    listed = cli("token", "list", "--format", "json").out
    table = cli("token", "list").out

    row = next(row for row in json.loads(listed)["tokens"] if row["principal"] == "bob")
    assert row["last_used_at"] is not None
    assert "hash" not in row
    assert token.rpartition("_")[2] not in listed + table
    assert "bob owns models/models/bob/" in table


def test_the_webhook_token_is_the_operator_api(
    service: Service, cli: Cli, show: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(service.guard.settings, webhook_token=Secret("hook"))
    guard = replace(service.guard, settings=settings)
    monkeypatch.setattr("guard.bootstrap.open_guard", lambda _settings=None: guard)
    show("hook")

    assert cli("token", "create", "ann", "--role", "reviewer").code == 0
    assert acts(cli) == [("token_create", "api", "operator")]
    assert cli("token", "create", "api", "--role", "reviewer").code == REFUSED


def test_a_login_acts_only_where_no_principal_exists_and_none_is_required(
    service: Service, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = service.scan(Verdict.HELD, by=None)
    strict = replace(
        service.guard, settings=replace(service.guard.settings, require_principals=True)
    )
    approve = ("review", "approve", held.id, "--reason", "seen")
    monkeypatch.setattr("guard.bootstrap.open_guard", lambda _settings=None: strict)
    assert cli(*approve).code == REFUSED
    monkeypatch.setattr("guard.bootstrap.open_guard", lambda _settings=None: service.guard)
    assert cli(*approve).code == 0
    assert acts(cli) == [("approve", operator(), "")]


def test_a_prefix_is_a_folder_of_an_intake_bucket(
    service: Service, cli: Cli, show: Callable[[str], None]
) -> None:
    show(people.give(service.guard, "ops", Role.OPERATOR))
    create = ("token", "create", "ann", "--role", "uploader", "--prefix")

    assert cli(*create, "elsewhere/ann").code == REFUSED
    assert cli("token", "create", "Ann", "--role", "uploader").code == REFUSED
    assert cli("token", "create", "ann", "--role", "uploader", "--expires", "9999").code == REFUSED
    assert cli(*create, "s3://models/models/ann").code == 0
    assert "ann owns models/models/ann/" in cli("token", "list").out
    assert cli("token", "disown", "ann", "models/models/ann").code == 0
    assert cli("token", "disown", "ann", "models/models/ann").code == REFUSED
    assert "ann owns" not in cli("token", "list").out
