"""`guard export`: what is published, carried into a folder."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Answer, Service
from tests.cli.serving import published

Cli = Callable[..., Answer]


def test_a_published_model_is_written_with_its_release(
    service: Service, cli: Cli, tmp_path: Path
) -> None:
    scan = published(service)
    answer = cli("export", "digits", "--out", tmp_path / "there")
    again = cli("export", "digits", "--out", tmp_path / "two", "--format", "json")

    assert answer.code == 0
    assert answer.out == f"digits 1.0 sha256:{scan.canonical_digest} {tmp_path / 'there'}\n"
    assert json.loads(again.out)["digest"] == scan.canonical_digest
    assert (tmp_path / "there" / "weights.safetensors").read_bytes() == service.guard.blobs.path(
        scan.canonical_digest or ""
    ).read_bytes()
    assert cli("export", "digits", "--out", tmp_path / "there").code == 4


def test_what_was_withdrawn_or_never_published_is_not_written(
    service: Service, cli: Cli, tmp_path: Path
) -> None:
    published(service)
    cli("withdraw", "digits", "--reason", "a hole")

    assert cli("export", "digits", "--out", tmp_path / "there").code == 4
    assert cli("export", "nothing", "--out", tmp_path / "there").code == 4
    assert not (tmp_path / "there").exists()
