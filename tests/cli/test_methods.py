"""`guard methods list`: what is on the shelves is what is shown."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from guard.core.shelf import Shelf
from tests.cli.conftest import Answer

Cli = Callable[..., Answer]


def test_every_plug_in_is_listed_with_its_version_and_use(cli: Cli) -> None:
    answer = cli("methods", "list", "--format", "json")
    rows = json.loads(answer.out)
    kinds = ("detectors", "defenses", "sifters", "retrainers", "formats", "publishers")

    assert answer.code == 0
    assert [(row["kind"], row["name"]) for row in rows] == [
        (kind, name) for kind in kinds for name in Shelf[object](f"guard.{kind}").names()
    ]
    assert all(isinstance(row["version"], int) for row in rows if row["kind"] in kinds[:4])
    inversion = next(row for row in rows if row["name"] == "patch_inversion")
    assert (inversion["policy"], inversion["families"]) == ("required", ["patch"])
    assert next(row for row in rows if row["name"] == "patch_unlearning")["policy"] == "tried 2."
    assert (
        next(row for row in rows if row["name"] == "shared_distillation")["policy"]
        == "tried 1. and 4."
    )


def test_a_defense_that_is_tried_twice_says_so(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "twice.toml"
    file.write_text(
        '[policy]\nname = "x"\n[detectors.patch_inversion]\n'
        + "".join(f'[[purify.defenses]]\nname = "{name}"\n' for name in ("sau", "fine_tune", "sau"))
    )
    monkeypatch.setenv("GUARD_POLICY_FILE", str(file))
    rows = json.loads(cli("methods", "list", "--kind", "defenses", "-f", "json").out)

    assert next(row for row in rows if row["name"] == "sau")["policy"] == "tried 1. and 3."


def test_one_kind_can_be_asked_for(cli: Cli) -> None:
    rows = json.loads(cli("methods", "list", "--kind", "formats", "-f", "json").out)

    assert {row["kind"] for row in rows} == {"formats"}
    assert "safetensors" in cli("methods", "list", "--kind", "formats").out
    assert cli("methods", "list", "--kind", "spells").code == 4


def test_the_canary_is_run_by_hand(cli: Cli) -> None:
    answer = cli("methods", "canary", "--format", "json")

    assert answer.code == 0
    tried = [(row["method"], row["passed"]) for row in json.loads(answer.out)]
    assert tried == [("patch_inversion", True), ("margin", True), ("weight_statistics", True)]
