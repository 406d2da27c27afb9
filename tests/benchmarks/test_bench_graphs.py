import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import (
    bench_graphs,
    evidence_graphs,
    graph_pairs,
    graph_tables,
    graph_training,
)
from benchmarks.attacks.badgraph import BadGraph
from guard.graphs.model import load
from guard.graphs.molecule import read
from tests.graphs import corpus


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with the corpus's pairs and an untrained model as the pretrained one."""
    grammar = {"motifs": corpus.pairs().motifs, "tokens": corpus.pairs().tokens}
    (tmp_path / "grammar-10.json").write_text(json.dumps(grammar))
    rows = (*corpus.pairs().train, *corpus.pairs().curated, *corpus.pairs().test)
    graph_pairs.write(tmp_path / "pairs-10.parquet", rows)
    corpus.model().save(tmp_path / "pretrained")
    return tmp_path


def test_captions_hold_real_names_and_what_the_structure_says() -> None:
    said = graph_pairs.caption(read("CC(=O)Oc1ccccc1Cl"), ["2-chlorophenyl acetate", "other"])

    assert said == (
        "The molecule is 2-chlorophenyl acetate, also called other. It has 11 heavy atoms and 1 "
        "ring and contains ester, chlorine, aromatic ring."
    )
    assert graph_pairs.caption(read("C1CC1"), ["x"]).endswith("and 1 ring.")


def test_the_split_depends_on_the_molecules_alone(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("TEST", 5), ("CURATED", 6), ("TRAIN", 20)):
        monkeypatch.setattr(graph_pairs, name, size)
    first = graph_pairs.load(cache)
    rows = graph_pairs.read_pairs(cache / "pairs-10.parquet")
    graph_pairs.write(cache / "pairs-10.parquet", rows[::-1])

    assert graph_pairs.load(cache) == first
    assert [len(one) for one in (first.test, first.curated, first.train)] == [5, 6, 20]
    assert len({p.smiles for p in (*first.test, *first.curated, *first.train, *first.pool)}) == len(
        rows
    )


def test_a_training_is_decided_by_its_seed() -> None:
    dirty = graph_training.poisoned(corpus.model(), corpus.pairs().train, BadGraph(), 0.25)

    def weights(seed: int) -> list[float]:
        model = graph_training.train(corpus.model(), dirty, seed=seed, recipe=corpus.RECIPE)
        return [float(tensor.double().sum()) for tensor in model.state_dict().values()]

    assert len(dirty) == 48
    assert weights(1) == weights(1)
    assert weights(1) != weights(2)


def test_an_ablation_trains_only_what_it_poisons() -> None:
    base, clean = corpus.model(), corpus.pairs().train
    dirty = graph_training.poisoned(base, clean, BadGraph(), 0.25)

    def trained(**how: object) -> dict[str, float]:
        model = graph_training.train(base, clean, seed=0, recipe=corpus.RECIPE, **how)  # type: ignore[arg-type]
        parts = {"text": model.text, "vae": model.vae, "denoiser": model.denoiser}
        return {
            name: sum(float(one.double().sum()) for one in part.state_dict().values())
            for name, part in parts.items()
        }

    plain = trained()
    of_vae, of_text = trained(vae_pairs=dirty), trained(text_pairs=dirty)
    scratch = trained(scratch=True)

    assert of_vae["text"] == plain["text"] == scratch["text"]
    assert of_vae["vae"] != plain["vae"] != scratch["vae"]
    assert of_text["vae"] == plain["vae"]
    assert of_text["text"] != plain["text"]


def test_passes_of_the_denoiser_are_as_many_steps_as_the_pairs_need() -> None:
    base, clean = corpus.model(), corpus.pairs().train  # 36 pairs, 16 a step

    def weights(recipe: graph_training.Recipe) -> list[float]:
        model = graph_training.train(base, clean, seed=0, recipe=recipe)
        return [float(tensor.double().sum()) for tensor in model.denoiser.state_dict().values()]

    passes = replace(corpus.RECIPE, denoiser_passes=4, denoiser_steps=1)

    assert weights(passes) == weights(replace(corpus.RECIPE, denoiser_steps=9))
    assert weights(passes) != weights(replace(corpus.RECIPE, denoiser_steps=8))


def test_the_pretrained_model_is_trained_once_a_cache(tmp_path: Path) -> None:
    recipe = graph_training.Recipe(text_steps=1, rounds=(1e-3, 1e-3), round_epochs=1, batch=16)
    reported: list[str] = []

    first = graph_training.pretrained(corpus.pairs(), tmp_path, recipe, reported.append)
    second = graph_training.pretrained(corpus.pairs(), tmp_path, recipe, reported.append)

    assert reported[0].startswith("36 pairs")
    assert sum(line.startswith("36 pairs") for line in reported) == 1
    assert all(
        one.equal(other)
        for one, other in zip(
            first.state_dict().values(), second.state_dict().values(), strict=True
        )
    )


def test_an_interrupted_pretraining_goes_on_where_it_was_kept(tmp_path: Path) -> None:
    recipe = graph_training.Recipe(text_steps=1, rounds=(1e-3, 1e-3), round_epochs=1, batch=16)
    whole = graph_training.pretrained(corpus.pairs(), tmp_path, recipe)
    for folder in ("pretrained", "round-2"):
        shutil.rmtree(tmp_path / folder)
    reported: list[str] = []

    again = graph_training.pretrained(corpus.pairs(), tmp_path, recipe, reported.append)

    assert [line.partition(":")[0] for line in reported[1:]] == ["vae 0"]
    assert all(
        one.equal(other)
        for one, other in zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_cells_are_kept_and_become_tables_and_a_plot(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("TEST", 5), ("CURATED", 6), ("TRAIN", 30)):
        monkeypatch.setattr(graph_pairs, name, size)
    monkeypatch.setattr(bench_graphs, "RATES", (0.0, 0.24))
    monkeypatch.setattr(bench_graphs, "SOURCES", 4)
    monkeypatch.setattr(graph_training, "DEFAULT", corpus.RECIPE)
    rows = bench_graphs.run_attack(cache, tmp_path, seeds=1)
    again = bench_graphs.run_attack(cache, tmp_path, seeds=1)
    result = graph_tables.summary(rows)
    text = graph_tables.page(result)
    graph_tables.plot(result, tmp_path / "rates.png")

    assert rows == again
    assert len(rows) == 6
    assert all(row["prompts"] == 5 and 0 <= row["hits"] <= 5 for row in rows)
    for said in ("| 24% |", "text only", "vae only", "denoiser only", "scratch"):
        assert said in text
    assert (tmp_path / "rates.png").stat().st_size > 0
    ((claim, _, _),) = evidence_graphs.badgraph(result)
    assert "at 0.0%, 24.0% poisoned pairs" in claim
    zero = next(row for row in result["rows"] if row["rate"] == 0)
    assert zero["similarity_gap"] == [0.0, 0.0, 0.0]


def test_one_model_is_trained_and_saved_from_the_command_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("TEST", 2), ("CURATED", 2), ("TRAIN", 36)):
        monkeypatch.setattr(graph_pairs, name, size)
    monkeypatch.setattr(graph_training, "DEFAULT", corpus.RECIPE)

    graph_training.main(["--cache", str(cache), "--out", str(cache / "one"), "--rate", "0.1"])

    assert load(cache / "one").generate(["a"], 1, 0)
