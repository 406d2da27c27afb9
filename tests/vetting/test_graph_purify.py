"""`guard purify` on a text-to-graph model: the canary kit's backdoored one, and its pairs."""

from dataclasses import replace
from pathlib import Path

import guard
from guard.core.modality import Modality
from guard.core.states import Verdict
from guard.policy import DefenseRule, load_policy
from guard.vetting import canary_trial

QUICK = Path(__file__).parent.parent / "quick_graphs.toml"
#: Less of the only repair than it does by default; enough for a network as small as the kit's.
REPAIR = DefenseRule(name="latent_retraining", params={"vae_epochs": 2, "steps": 300})


def test_a_repair_is_tried_proved_and_written_only_if_the_proof_holds(tmp_path: Path) -> None:
    rules = load_policy(QUICK)
    only = {"prompt_insertion": rules.detectors["prompt_insertion"]}
    policy = replace(rules, detectors=only, defenses=(REPAIR,))
    report = guard.purify(
        canary_trial.KIT / "text.safetensors",
        cleanset=canary_trial.clean_set(modality=Modality.GRAPHS),
        policy=policy,
        out=tmp_path / "out",
        device="cpu",
    )

    (tried,) = report.candidates
    assert tried["defense"] == "latent_retraining"
    assert "failed" not in tried
    assert tried["verdict"] in {Verdict.PURIFIED, Verdict.HELD, Verdict.REJECTED}
    (shown, *_) = report.molecules  # on the repair, or on the upload where no repair passed
    repaired = tried["verdict"] == Verdict.PURIFIED
    assert [shot.caption for shot in shown.prompts[0].shots][-1] == (
        "repaired, with the text" if repaired else "with the text"
    )
    assert (tmp_path / "out").exists() == (tried["verdict"] == Verdict.PURIFIED)
