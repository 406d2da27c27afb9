import pytest

from benchmarks import bench_sampling
from tests.graphs import corpus


def test_molecules_are_the_same_in_one_batch_and_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench_sampling, "ALONE", 5)
    monkeypatch.setattr(bench_sampling, "ROUNDS", 1)
    prompts = [pair.text for pair in corpus.pairs().test]

    row = bench_sampling.measured(corpus.model(), prompts, 3)

    count = 3 * min(len(prompts), bench_sampling.PROMPTS) * bench_sampling.SEEDS
    assert (row["molecules"], row["alone"], row["same"]) == (count, 5, 5)
    assert row["ratio"] == pytest.approx(row["per_second_batched"] / row["per_second_alone"])
    assert f"| corpus | {count} |" in bench_sampling.page({"rows": [{"model": "corpus", **row}]})
