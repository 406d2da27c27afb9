"""`guard keys`: keys are made, listed, trusted and distrusted by recorded acts."""

import json
from collections.abc import Callable
from pathlib import Path

from guard.attest.keys import Signer, TrustedKeys
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


def test_a_file_that_holds_the_key_already_is_not_written(service: Service, cli: Cli) -> None:
    """As in Kubernetes, where the file is a ConfigMap that nobody can write."""
    settings = service.guard.settings
    new = settings.data_dir / "keys" / "second.pem"
    key_id = cli("keys", "make", new).out.split()[1].rstrip(";")
    TrustedKeys.load(settings.trusted_keys_file).trust(Signer.load(new), settings.trusted_keys_file)
    before = settings.trusted_keys_file.stat()

    assert cli("keys", "trust", new, "--reason", "yearly").out == f"trusted {key_id}\n"

    after = settings.trusted_keys_file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert cli("verify").code == 0


def test_a_key_for_a_cluster_is_made_and_trusted_where_there_was_nothing(
    home: Path, cli: Cli
) -> None:
    """The commands of docs/deploying.md."""
    pem = home / "keys" / "signing.pem"

    assert cli("db", "upgrade").code == 0
    assert cli("keys", "make", pem).code == 0
    assert cli("keys", "trust", pem, "--reason", "first").code == 0
    assert Signer.load(pem).key_id in TrustedKeys.load(pem.with_name("trusted.json")).keys


def test_a_key_of_model_signatures_is_a_second_one_and_trusted_by_an_act(
    service: Service, cli: Cli
) -> None:
    new = service.guard.settings.model_signing_key_file
    made = cli("keys", "make", new, "--model-signing")
    key_id = made.out.split()[1].rstrip(";")

    assert made.code == 0
    assert new.with_suffix(".pub").read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----")
    assert cli("keys", "make", new, "--model-signing").code == 4
    assert cli("keys", "trust", new, "--reason", " ").code == 4
    assert cli("keys", "trust", new, "--reason", "for KServe").out == (
        f"trusted {key_id} to sign published files, and nothing else\n"
    )
    assert key_id not in cli("keys", "list").out, "verdicts never count by it"
    assert cli("keys", "distrust", key_id[:12], "--reason", "lost").out == f"distrusted {key_id}\n"
    assert cli("keys", "distrust", key_id, "--reason", "again").code == 4
    kinds = [one["act"] for one in json.loads(cli("acts", "list", "--format", "json").out)]
    assert kinds[:2] == ["model_key_revoke", "model_key_trust"]
    assert cli("verify").code == 0


def test_a_public_key_that_cannot_be_written_is_named(service: Service, cli: Cli) -> None:
    folder = service.guard.settings.data_dir / "keys"
    (folder / "x.pub").symlink_to(folder / "no" / "such" / "folder")

    answer = cli("keys", "make", folder / "x.pem", "--model-signing")

    assert answer.code == 4
    assert "x.pub" in answer.err
