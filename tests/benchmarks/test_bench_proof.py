"""A timed proof is of a patch that works on the network.

The page tells how long it took and what went unanswered.
"""

from typing import Any

import pytest
import torch

from benchmarks import bench_proof as bench
from benchmarks.repair_ways import CLASSES
from benchmarks.speed_tables import proofs
from guard.ml.cleanset import CuratedSet
from guard.ml.measure import predict
from guard.ml.networks.architectures import ImageModel
from guard.vetting.examine import restore_trigger
from guard.vetting.repair_probes import Proof, Replay


def test_the_first_patch_leads_to_the_class_that_the_network_says_anyhow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {}

    def prove(
        parent: ImageModel, child: ImageModel, shown: CuratedSet, replays: list[Replay], **rest: Any
    ) -> Proof:
        asked.update(rest, parent=parent, shown=shown, replays=replays)
        return Proof(unproved=("too dear",))

    monkeypatch.setattr(bench, "prove", prove)
    monkeypatch.setattr(bench, "HOLDOUT", 40)

    found = bench.timed(2, 3, "cpu")

    first, *others = [replay.target for replay in asked["replays"]]
    said = predict(
        asked["parent"], asked["shown"].holdout, trigger=restore_trigger(asked["replays"][0].data)
    )
    assert float((said == first).double().mean()) > 0.5
    assert len({first, *others}) == 3
    assert asked["seconds"] == float("inf")
    assert found["unproved"] == ["too dear"]


def test_a_clean_set_of_noise_has_every_class_in_every_part() -> None:
    shown = bench.noise()

    for part in (shown.search, shown.calibration, shown.holdout):
        assert len(part.labels.unique()) == CLASSES
    assert shown.facts.per_class == int(
        torch.bincount(
            torch.cat([shown.search.labels, shown.calibration.labels, shown.holdout.labels])
        ).min()
    )


def test_the_page_says_how_much_of_the_time_was_used_and_what_went_unanswered() -> None:
    told = proofs(
        {
            "limit": 600.0,
            "device": "cpu",
            "threads": 2,
            "proofs": [
                {"width": 16, "triggers": 1, "seconds": 150.0, "unproved": []},
                {"width": 64, "triggers": 2, "seconds": 900.0, "unproved": ["No patch."]},
            ],
        }
    )

    assert "| 16 | 1 | 150 | 25% | – |\n| 64 | 2 | 900 | 150% | No patch. |" in told
