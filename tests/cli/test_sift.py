"""`guard sift`: what taught a model is looked at, and the suspects are written to a file."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

import guard
from guard import offline_sift
from guard.core.plain import from_plain
from guard.core.sift import SiftReport, SiftRules, SiftVerdict
from guard.core.states import Verdict
from guard.core.trainset import Suspect, TrainingSetFacts
from guard.reports.suspects import suspects_file
from guard.trainsets import from_arrays
from guard.vetting import training_set as sifting
from guard.vetting.sift_images import shown_images
from tests.cli import models, sets
from tests.cli.conftest import Answer

Cli = Callable[..., Answer]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sifting, "DEFAULT_METHODS", sets.QUICK)


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return models.clean_set(tmp_path / "clean.npz")


@pytest.fixture
def bad(tmp_path: Path) -> tuple[Path, Path]:
    """A backdoored model and what taught it."""
    return (
        models.saved(tmp_path / "bad", backdoored=True),
        sets.training_set(tmp_path / "bad.npz", poisoned=True),
    )


def test_poison_ends_with_1_and_names_the_class_and_the_suspects(
    cli: Cli, bad: tuple[Path, Path], clean: Path, tmp_path: Path
) -> None:
    out = tmp_path / "suspects.parquet"
    answer = cli("sift", *bad, "--cleanset", clean, "--out", out)

    assert answer.code == 1, answer.err
    assert "POISONED" in answer.out
    assert "columns" in answer.out
    assert "dirty-label" in answer.out
    rows = parquet.read_table(out).to_pylist()
    assert sets.stamped([row["index"] for row in rows]) >= 0.9 * len(rows) > 100
    assert {row["label_name"] for row in rows} == {"columns"}


def test_an_honest_set_ends_with_0_and_its_json_can_be_read_back(
    cli: Cli, clean: Path, tmp_path: Path
) -> None:
    model = models.saved(tmp_path / "honest")
    taught = sets.training_set(tmp_path / "taught.npz", poisoned=False)
    answer = cli("sift", model, taught, "--cleanset", clean, "--format", "json")
    report = from_plain(SiftReport, json.loads(answer.out))

    assert answer.code == 0, answer.err
    assert report.verdict is SiftVerdict.NOTHING
    assert "clears nothing" in report.reasons[0]
    assert report.training_set.images == 900


def test_the_set_of_another_model_ends_with_2(cli: Cli, clean: Path, tmp_path: Path) -> None:
    model = models.saved(tmp_path / "honest")
    taught = sets.training_set(tmp_path / "taught.npz", poisoned=True)
    answer = cli("sift", model, taught, "--cleanset", clean)

    assert answer.code == 2
    assert "is not the set that it learnt from" in " ".join(answer.out.split()).replace("│ ", "")


def test_a_set_with_other_classes_is_a_report_and_no_crash(clean: Path, tmp_path: Path) -> None:
    model = models.saved(tmp_path / "honest")
    images, labels = models.pictures(90, seed=2)
    few = from_arrays(images[labels < 4], labels[labels < 4], ("a", "b", "c", "d"))
    report = guard.sift(model, few, cleanset=clean)

    assert report.verdict is SiftVerdict.COULD_NOT_LOOK
    assert "4 classes and the model 6" in report.reasons[0]


def test_a_clean_set_of_another_size_is_a_report_and_no_crash(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clean = tmp_path / "clean.npz"
    images = rng.integers(0, 256, (300, 1, 8, 8), dtype=np.uint8)
    np.savez(clean, images=images, labels=np.arange(300) % models.CLASSES)
    taught = sets.training_set(tmp_path / "taught.npz", poisoned=False)
    report = guard.sift(models.saved(tmp_path / "honest"), taught, cleanset=clean)

    assert report.verdict is SiftVerdict.COULD_NOT_LOOK
    assert "1x8x8" in report.reasons[0]


def test_where_the_sift_cannot_be_written_nothing_is_begun(
    cli: Cli, bad: tuple[Path, Path], clean: Path, tmp_path: Path
) -> None:
    where = tmp_path / "nowhere" / "out.json"

    assert cli("sift", *bad, "--cleanset", clean, "--out", where).code == 4
    assert cli("sift", *bad, "--cleanset", clean, "--html", tmp_path).code == 4
    answer = cli("sift", *bad, "--cleanset", clean, "--out", tmp_path / "suspects.txt")
    assert answer.code == 4
    assert ".parquet, .json, .csv" in answer.err


def test_a_set_that_is_nowhere_is_a_sentence(
    cli: Cli, bad: tuple[Path, Path], clean: Path, home: Path
) -> None:
    answer = cli("sift", bad[0], "digits", "--cleanset", clean)

    assert answer.code == 4
    assert "no stored training set" in answer.err
    assert not (home / "guard.db").exists()


def test_the_page_shows_suspects_beside_clean_images_and_triggers(
    bad: tuple[Path, Path], clean: Path
) -> None:
    with offline_sift.sifting(*bad, cleanset=clean) as found:
        shown = shown_images(found)

    (target,) = [one for one in found.report.classes if one.stands_out]
    assert list(shown.suspects) == [one.index for one in found.report.suspects[:60]]
    assert shown.suspects[found.report.suspects[0].index].shape == (1, models.SIDE, models.SIDE)
    assert [len(images) for images in shown.clean.values()] == [6]
    assert target.trigger is not None
    (pairs,) = shown.triggers.values()
    assert pairs.shape == (8, 1, models.SIDE, models.SIDE)
    assert (pairs[0] != pairs[1]).any()


@pytest.mark.parametrize("ending", [".csv", ".json"])
def test_a_suspect_that_nobody_is_sure_of_has_no_true_class_and_no_formula_in_its_name(
    ending: str,
) -> None:
    one = Suspect(index=3, label=1, estimated=None, fdr=0.05, source="=SUM(A1)", numbers={"m": 0.1})
    facts = TrainingSetFacts(
        uri="x",
        digest="0" * 64,
        images=9,
        total=9,
        channels=1,
        height=2,
        width=2,
        class_names=("cow", "ant"),
        per_class=(5, 4),
    )
    report = SiftReport(
        verdict=SiftVerdict.POISONED,
        reasons=(),
        training_set=facts,
        cleanset="1" * 64,
        seed=0,
        rules=SiftRules(),
        suspects=(one, replace(one, estimated=0, proof=True)),
    )
    text = suspects_file(report, ending).decode()

    if ending == ".csv":
        first, second = csv.DictReader(io.StringIO(text))
        assert (first["source"], first["estimated"]) == ("'=SUM(A1)", "")
        assert (second["estimated_name"], second["p_m"]) == ("cow", "0.1")
    else:
        first, second = json.loads(text)
        assert (first["source"], first["estimated"]) == ("=SUM(A1)", None)
        assert second["proof"] is True
    with pytest.raises(ValueError, match="xlsx"):
        suspects_file(report, ".xlsx")


def test_a_repair_is_taught_and_proved_by_the_suspects_of_a_sift(
    cli: Cli, bad: tuple[Path, Path], clean: Path, tmp_path: Path
) -> None:
    model, taught = bad
    policy = tmp_path / "policy.toml"
    text = models.QUICK.read_text().split("[[purify.defenses]]", maxsplit=1)[0]
    policy.write_text(text + '[[purify.defenses]]\nname = "relabelling"\ninformed = true\n')
    out = tmp_path / "out"
    answer = cli(
        *("purify", model, "--cleanset", clean, "--training-set", taught, "--policy", policy),
        *("--out", out, "--format", "json"),
    )
    document = json.loads(answer.out)

    assert (answer.code, document["verdict"]) == (0, "purified"), document["reasons"]
    assert document["suspects"][0]["before"]["estimate"] > 0.8
    assert document["suspects"][0]["after"]["high"] <= 0.10
    assert document["moments"][0]["before"]["estimate"] > 0.5
    assert document["moments"][0]["after"]["high"] <= 0.10
    others = models.unseen(300)
    others = others.pick(others.labels != models.TARGET)
    assert models.success(out, models.stamped(others.images)) <= 0.10


def test_an_honest_set_leaves_the_tournament_as_it_was(clean: Path, tmp_path: Path) -> None:
    report = guard.purify(
        models.saved(tmp_path / "honest"),
        cleanset=clean,
        out=tmp_path / "out",
        policy=models.QUICK,
        training_set=sets.training_set(tmp_path / "taught.npz", poisoned=False),
    )

    assert report.verdict is Verdict.CLEARED
    assert report.candidates == []


def test_a_model_that_the_sift_alone_rejects_is_reported_with_its_set(
    cli: Cli, bad: tuple[Path, Path], clean: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    text = '[policy]\nname = "weights"\nversion = 1\n[detectors.weight_statistics]\n'
    policy.write_text(text)
    model, taught = bad
    arguments = ("purify", model, "--cleanset", clean, "--training-set", taught, "--policy", policy)
    answer = cli(*arguments, "--out", tmp_path / "out")
    shown = " ".join(answer.out.replace("│", " ").split())

    assert answer.code == 1, answer.err
    assert "REJECTED" in answer.out
    assert "bad.npz: poisoned" in shown.replace(" : ", ": ")
    assert "In the training set" in shown
    assert "target class" in shown
