"""`guard verify`: whatever was changed behind the guard's back is named."""

import json
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import text

from guard.core.states import Verdict
from tests.cli.conftest import Answer, Service
from tests.cli.serving import foreign, published

Cli = Callable[..., Answer]


def test_verify_of_an_untouched_guard_is_ok(service: Service, cli: Cli) -> None:
    published(service)
    answer = cli("verify")

    assert answer.code == 0
    assert answer.out.startswith("ok:")


def test_verify_names_a_changed_blob(service: Service, cli: Cli) -> None:
    digest = str(published(service).canonical_digest)
    blob = next(
        path
        for path in Path(service.guard.settings.blob_url).rglob("*")
        if path.name.endswith(digest[-8:])
    )
    blob.chmod(0o600)
    blob.write_bytes(b"other bytes")
    answer = cli("verify", digest, "--format", "json")
    said = json.loads(answer.out)

    assert answer.code == 6
    assert said["ok"] is False
    assert any(digest[:8] in problem for problem in said["problems"])


def test_verify_names_a_row_edited_by_sql(service: Service, cli: Cli) -> None:
    service.scan(Verdict.REJECTED)
    with service.guard.engine.begin() as connection:
        names = (
            connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'"))
            .scalars()
            .all()
        )
        for name in names:
            connection.execute(text(f"DROP TRIGGER {name}"))
        connection.execute(text("UPDATE verdicts SET verdict = 'cleared'"))
    answer = cli("verify")

    assert answer.code == 6
    assert answer.out.strip()


def test_verify_names_what_is_served_without_a_verdict(service: Service, cli: Cli) -> None:
    published(service)
    foreign(service)
    answer = cli("verify")

    assert answer.code == 6
    assert "foreign" in answer.out


def test_a_digest_nobody_knows_is_not_verified(service: Service, cli: Cli) -> None:
    assert cli("verify", "f" * 64).code == 6
