"""`guard ledger`: a person takes a ledger that differs from its checkpoints."""

from collections.abc import Callable

from sqlalchemy import text

from tests.cli.conftest import Answer, Service
from tests.cli.serving import published

Cli = Callable[..., Answer]


def forget_the_revocation(service: Service) -> None:
    with service.guard.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER revocations_no_delete"))
        connection.execute(text("DELETE FROM revocations"))


def test_a_deleted_revocation_is_named_and_put_back(service: Service, cli: Cli) -> None:
    scan = published(service)
    cli("withdraw", "digits", "--reason", "found a hole")
    forget_the_revocation(service)

    answer = cli("verify")
    assert answer.code == 6
    assert "revocation" in answer.out
    assert cli("publish", scan.id).code == 1

    accepted = cli("ledger", "accept", "--reason", "it was a slip")
    assert accepted.code == 0
    assert accepted.out.endswith("accepted as it is now\n")
    assert cli("verify").code == 0
    assert "agrees" in cli("ledger", "accept", "--reason", "again").out


def test_a_ledger_whose_checkpoints_are_gone_is_a_mismatch(service: Service, cli: Cli) -> None:
    scan = published(service)
    cli("withdraw", "f" * 64, "--reason", "x")
    (service.guard.settings.checkpoint_dir / "checkpoints.jsonl").unlink()

    assert cli("verify").code == 6
    answer = cli("publish", scan.id)
    assert answer.code == 6
    assert "guard ledger accept" in answer.err
    assert cli("served").code == 6
