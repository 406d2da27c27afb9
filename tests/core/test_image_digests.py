"""What was signed and stored about images before there was a second modality stays as it was."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from guard.attest.statement import Issue, PolicyName, verdict_statement
from guard.cleansets import RawSet, curate
from guard.core.digests import json_digest
from guard.core.evidence import Accuracy, Evidence, Outcome, clean_set_from
from guard.core.manifest import Manifest
from guard.core.manifests import manifest_from
from guard.core.plain import to_plain
from guard.core.states import Verdict
from guard.core.verdict import VerdictFacts
from guard.formats._canonical import write_canonical
from guard.policy import load_policy
from guard.policy.rules import RepairRule
from tests.core.test_manifest import TIMM, parse, polarized

# Computed by the release before text-to-graph models were vetted.
LABELS = {"label_names": [str(index) for index in range(10)], "guard": {"cleanset": "mnist"}}
SET = {"guard": {"training_set": {"uri": "s3://sets/a/", "digest": "a" * 64}}}
MANIFESTS = [
    (TIMM, "35a545d5c97185e79674841cb1d0ac35b52aec36a7bb6a279c5c24364c8db646"),
    ({**TIMM, **LABELS}, "13da4c3b2725a525bb155e72252727a3a4c828e65ecae7baa2895f5d4246aab5"),
    (polarized(), "88d1377ee7653a15c34dbcad168610ce86eeaae8199ded76a40bcce647184fbe"),
    ({**TIMM, **SET}, "020db73b7db6169fe861fb82dc8f1707c1e4a6a385d0549ab21e998f83387eee"),
]
POLICIES = {
    "default": "b2ec4ff7ece37c14856877253b5b7ab2f2e154234b3153c263ad554eb88a76bb",
    "copies": "06b7f4274efc673a907cbd52ac04c1800a2ab546f5d27b92c0f22a4cb37aa6d4",
    "strict": "13194cd75cca765fa0c8c41b6d76e7a6d7dcaca5a6b2cc6a630c0bb5bae6528c",
    "ensemble": "ff668ac07c0e62f8f5bffbccd492fd21a0e1ae9f6867f6b328abb18d87ae0c03",
}


@pytest.mark.parametrize(("config", "digest"), MANIFESTS)
def test_manifests_of_images_keep_their_digests(config: dict[str, object], digest: str) -> None:
    assert parse(config).digest == digest
    assert manifest_from(config).digest == digest
    assert manifest_from({**config, "task": "image-classification"}).digest == digest


@pytest.mark.parametrize("name", POLICIES)
def test_packaged_policies_keep_their_digests(name: str) -> None:
    assert load_policy(Path(name)).digest == POLICIES[name]


def test_earlier_strict_policies_still_have_their_digests() -> None:
    strict, accuracy = load_policy(Path("strict")), load_policy().accuracy
    older = tuple(rule for rule in strict.defenses if rule.name != "fresh_student")
    fifth = replace(strict, version=5, accuracy=accuracy, defenses=older)
    fourth = replace(fifth, version=4, repair=RepairRule(), defenses=older[:-1])  # none was blind

    assert fifth.digest == "1d9ab9ddfdcc5de57899aa1af480649c5ae3c37f171d89c0b031f38bd511b9ff"
    assert fourth.digest == "80e7f79bfb1af27a809a50bd9af97a12def1283a8c7a69493b86cb2720350327"


def test_a_canonical_file_keeps_its_digest(tmp_path: Path) -> None:
    tensors = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.zeros(2)}

    digest = write_canonical(tensors, parse({**TIMM, **LABELS}), tmp_path / "model.safetensors")

    assert digest == "c5d4cb05ed09a346b7decfe3143245356a6c4a57fe1298c789753643f7ef88d3"


def test_a_clean_set_and_its_stored_facts_stay_as_they_were() -> None:
    images = (np.arange(20 * 16) % 251).astype(np.uint8).reshape(20, 1, 4, 4)
    raw = RawSet(images, np.arange(20) % 5, tuple("abcde"), tuple(map(str, range(20))))

    _, facts = curate(raw, "toy")

    assert facts.digest == "5b54c4a310684d628cac301839586eb601cd29ad744e8b2c75921ad316b8c888"
    stored = to_plain(facts)
    assert json_digest(stored) == "09cda682178655494c4bcf33bf6143e12f6e8d6d484cd23983b72f74254699f1"
    assert clean_set_from(stored) == facts


def test_stored_evidence_stays_as_it_was() -> None:
    item = Evidence(
        artifact="a" * 64,
        method="clean_accuracy",
        version=1,
        parameters={},
        cleanset="c" * 64,
        seed=0,
        outcome=Outcome.MEASURED,
        families=(),
        accuracy=Accuracy(overall=0.5, per_class=(0.5, 0.5), images=10),
    )

    assert item.key == "000fa765df5dd4a4b26894b05b3f203fa6f59d4671226543c6d3966b9e6085f7"
    plain = json_digest(item.to_dict())
    assert plain == "4bb5cf2ae6526721c76ffd5ca5e97c301312f345073f2254578288d799e5d219"


def test_a_verdict_on_an_image_model_is_signed_as_before() -> None:
    facts = VerdictFacts(
        verdict=Verdict.CLEARED, reasons=("Cleared.",), score=0.25, coverage=("patch",)
    )
    issue = Issue(
        verdict_id="v",
        scan_id="s",
        name="n",
        policy=PolicyName(name="default", digest="d" * 64),
        cleanset="c" * 64,
        basis={"kind": "policy"},
        issued_at=datetime(2026, 1, 1, tzinfo=UTC),
        expires_at=datetime(2026, 2, 1, tzinfo=UTC),
    )

    statement = verdict_statement("a" * 64, facts, issue)
    # The second version of the statement has one key more.
    assert statement.pop("predicateType") == "https://registry-guard.dev/verdict/v2"
    assert statement["predicate"].pop("natural_trigger") is None
    first = {**statement, "predicateType": "https://registry-guard.dev/verdict/v1"}

    assert json_digest(first) == "a276ffb456e19cc24128936477613d419f2bc84cc1f81c12e8bf7092a4958b1d"


def test_an_image_manifest_is_no_other_models() -> None:
    assert isinstance(manifest_from(TIMM), Manifest)
