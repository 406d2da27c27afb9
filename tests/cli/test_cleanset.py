"""`guard cleanset`: pictures in, one digest out, and clear words about bad ones."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from guard.bootstrap import open_guard
from tests.cli.conftest import Answer
from tests.services import shared_weed

Cli = Callable[..., Answer]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    path = tmp_path / "digits.npz"
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), np.uint8)
    np.savez(path, images=images, labels=np.arange(60) % 3)
    return path


def test_a_set_is_added_on_a_machine_with_nothing_and_listed(cli: Cli, pictures: Path) -> None:
    answer = cli("cleanset", "add", "digits", pictures, "--format", "json")
    facts = json.loads(answer.out)

    assert answer.code == 0
    assert (facts["name"], facts["classes"], facts["per_class"]) == ("digits", 3, 20)
    assert open_guard().blobs.has(facts["digest"])
    assert json.loads(cli("cleanset", "list", "-f", "json").out) == [facts]
    assert facts["digest"][:16] in cli("cleanset", "list").out


def test_checking_stores_nothing(cli: Cli, pictures: Path, home: Path) -> None:
    answer = cli("cleanset", "check", pictures)

    assert answer.code == 0
    assert "8x8" in answer.out
    assert not home.exists()


def test_checking_and_adding_agree(cli: Cli, pictures: Path) -> None:
    checked = json.loads(cli("cleanset", "check", pictures, "-f", "json").out)
    added = json.loads(cli("cleanset", "add", "digits", pictures, "-f", "json").out)

    assert checked == added


def test_the_seed_moves_the_split(cli: Cli, pictures: Path) -> None:
    digests = {
        json.loads(cli("cleanset", "check", pictures, "--seed", seed, "-f", "json").out)["digest"]
        for seed in (0, 1)
    }

    assert len(digests) == 2


@pytest.mark.parametrize("source", ["missing.npz", "s3://only-a-bucket", "s3://bucket/folder/"])
def test_a_source_that_is_none_is_a_usage_error(source: str, cli: Cli, home: Path) -> None:
    answer = cli("cleanset", "add", "x", source)

    assert (answer.code, answer.out) == (4, "")
    assert answer.err.startswith("guard: ")
    assert not (home / "guard.db").exists()


def test_a_broken_file_is_a_sentence(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "broken.npz"
    path.write_bytes(b"PK\x03\x04 nothing")
    answer = cli("cleanset", "check", path)

    assert answer.code == 4
    assert "Traceback" not in answer.err


def test_a_set_can_come_from_a_bucket(
    cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = shared_weed().new_bucket()
    for name, value in shared_weed().environment(bucket.name).items():
        monkeypatch.setenv(name, value)
    bucket.upload(pictures, "sets/digits.npz")
    source = f"s3://{bucket.name}/sets/digits.npz"
    here, there = (
        json.loads(cli("cleanset", "check", place, "-f", "json").out)
        for place in (pictures, source)
    )

    assert here == there
    missing = cli("cleanset", "check", f"s3://{bucket.name}/sets/gone.npz")
    assert (missing.code, missing.out) == (3, "")
    monkeypatch.setenv("GUARD_MAX_UPLOAD_BYTES", "100")
    large = cli("cleanset", "check", source)
    assert large.code == 4
    assert "larger than 100 bytes" in large.err


def test_an_empty_list_says_what_to_do(cli: Cli) -> None:
    assert cli("db", "upgrade").code == 0
    assert "guard cleanset add" in cli("cleanset", "list").out
