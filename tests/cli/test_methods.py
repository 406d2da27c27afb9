"""`guard methods list`: what is on the shelves is what is shown."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from guard.core.shelf import Shelf
from tests.cli.conftest import Answer

QUICK = Path(__file__).parent.parent / "quick.toml"
QUICK_GRAPHS = Path(__file__).parent.parent / "quick_graphs.toml"
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


def test_the_canary_is_run_by_hand(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the default policy's detectors; the search has no more effort than the kit asks for."""
    file = tmp_path / "quick.toml"
    file.write_text(
        QUICK.read_text()
        + "".join(f"[detectors.{name}]\n" for name in ("margin", "weight_statistics"))
    )
    monkeypatch.setenv("GUARD_POLICY_FILE", str(file))
    answer = cli("methods", "canary", "--modality", "image-classification", "--format", "json")

    assert answer.code == 0
    tried = [(row["method"], row["passed"]) for row in json.loads(answer.out)]
    assert tried == [("patch_inversion", True), ("margin", True), ("weight_statistics", True)]
    assert cli("methods", "canary", "--modality", "spells").code == 4


def test_the_canary_of_text_to_graph_models_is_run_by_hand(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARD_GRAPH_POLICY_FILE", str(QUICK_GRAPHS))
    answer = cli("methods", "canary", "--modality", "text-to-graph")

    assert answer.code == 0
    assert answer.out.count("yes") == 3
    assert "prior_motifs" in answer.out


def test_the_canary_of_every_policy_is_run_unless_one_is_named(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, graph = tmp_path / "image.toml", tmp_path / "graph.toml"
    image.write_text('[policy]\nname = "i"\n[detectors.weight_statistics]\n')
    head = '[policy]\nname = "g"\nmodality = "text-to-graph"\n'
    graph.write_text(
        f"{head}[detectors.prior_motifs]\nparams = {{samples = 40, epochs = 1, steps = 5}}\n"
    )
    monkeypatch.setenv("GUARD_POLICY_FILE", str(image))
    monkeypatch.setenv("GUARD_GRAPH_POLICY_FILE", str(graph))
    answer = cli("methods", "canary", "--format", "json")

    names = [row["method"] for row in json.loads(answer.out)]
    assert names == ["weight_statistics", "prior_motifs"]
