"""`guard keys`: keys are made, listed, trusted and distrusted by recorded acts."""

import json
from collections.abc import Callable

from tests.cli.conftest import Answer, Service

Cli = Callable[..., Answer]


def test_keys_are_made_listed_trusted_and_distrusted(service: Service, cli: Cli) -> None:
    new = service.guard.settings.data_dir / "keys" / "second.pem"
    made = cli("keys", "make", new)
    assert made.code == 0
    assert cli("keys", "make", new).code == 4
    key_id = made.out.split()[1].rstrip(";")

    assert cli("keys", "trust", new).code == 4  # no reason
    assert cli("keys", "trust", new, "--reason", "yearly").out == f"trusted {key_id}\n"
    listed = json.loads(cli("keys", "list", "--format", "json").out)
    assert listed == sorted([key_id, service.guard.signer.key_id])
    assert key_id in cli("keys", "list").out
    assert cli("verify").code == 0

    assert cli("keys", "distrust", service.guard.signer.key_id, "--reason", "x").code == 4
    assert cli("keys", "distrust", key_id, "--reason", "x").out == f"distrusted {key_id}\n"
    assert key_id not in cli("keys", "list").out
    assert cli("keys", "trust", key_id, "--reason", "back").code == 4  # its record says no
    assert cli("verify").code == 0
