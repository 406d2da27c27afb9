"""Text-to-graph models on the way of every model: inspected, opened, measured, scanned."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from guard import offline
from guard.cleansets import curated_source
from guard.core import plugins
from guard.core.contracts import Budget
from guard.core.errors import (
    ArtifactRejected,
    CleanSetError,
    InputError,
    MethodFailed,
    PolicyError,
)
from guard.core.evidence import Evidence, Finding, Outcome
from guard.core.graph_manifest import GraphManifest
from guard.core.pairs import CuratedPairs
from guard.core.states import Verdict
from guard.flow.publish import smoke_from
from guard.graphs.triggers import ContextTrigger, PromptTrigger, deserialise
from guard.jobs import child
from guard.ml.networks import architectures
from guard.offline_inputs import curated_set, image_set
from guard.policy import load_policy
from guard.reports.html import render_html
from guard.vetting import _graphs, examine, modalities
from tests import toys
from tests.graph_toys import CONFIG, QUALITY, alkanes, manifest, model, write_model, write_pairs

THIIRANE = "C1CS1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="module")
def pairs(folder: Path) -> CuratedPairs:
    found = curated_set(write_pairs(folder / "pairs.parquet", *alkanes(60)))
    assert isinstance(found, CuratedPairs)
    return found


def inspected(place: Path, out: Path) -> examine.Inspected:
    return examine.inspect_upload(
        place / "model.safetensors",
        "model.safetensors",
        (place / "config.json").read_bytes(),
        out,
        budget=Budget(),
    )


def test_an_upload_becomes_a_canonical_file_that_opens_as_the_same_model(
    tmp_path: Path,
) -> None:
    found = inspected(write_model(tmp_path / "up"), tmp_path)

    assert isinstance(found.manifest, GraphManifest)
    assert examine.manifest_of(found.canonical) == manifest()
    opened = examine.open_model(found.canonical, device="cpu")
    texts = ["the molecule", "a"]
    assert opened.generate(texts, samples=2) == model().generate(texts, samples=2)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("missing", "manifest_shapes"),
        ("extra", "manifest_shapes"),
        ("part", "manifest_shapes"),
        ("shape", "manifest_shapes"),
        ("dtype", "manifest_shapes"),
        ("motif", "manifest_motif_refused"),
        ("entry", "manifest_entry_impossible"),
        ("size", "manifest_bad_model_args"),
        ("nan", "not_finite"),
    ],
)
def test_weights_and_vocabularies_that_do_not_fit_are_refused(
    tmp_path: Path, fault: str, code: str
) -> None:
    place = write_model(tmp_path / "up")
    weights = safetensors.torch.load_file(place / "model.safetensors")
    config = json.loads(json.dumps(CONFIG))
    name = next(name for name in weights if name.startswith("denoiser."))
    if fault == "missing":
        weights = {key: value for key, value in weights.items() if not key.startswith("vae.")}
    elif fault == "extra":
        weights["denoiser.more"] = torch.zeros(1)
    elif fault == "part":
        weights["other.more"] = torch.zeros(1)
    elif fault == "shape":
        weights[name] = torch.zeros(3, 3, 3)
    elif fault == "dtype":
        weights[name] = weights[name].double()
    elif fault == "motif":
        config["motifs"][2] = "C1CC"
    elif fault == "entry":
        config["tokens"][-1] = "-|C1CS1|3"
    elif fault == "size":
        config["model_args"]["latent"] = 100_000
    else:
        weights[name] = torch.full_like(weights[name], float("nan"))
    safetensors.torch.save_file(weights, place / "model.safetensors")
    (place / "config.json").write_text(json.dumps(config))

    with pytest.raises(ArtifactRejected) as caught:
        inspected(place, tmp_path)

    assert caught.value.code == code


def test_a_scan_without_a_policy_for_the_modality_is_inconclusive(
    tmp_path: Path, pairs: CuratedPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guard.policy.load.packaged", lambda: ["default"])

    report = offline.scan(write_model(tmp_path / "up"), cleanset=pairs, device="cpu")

    assert report.verdict is Verdict.INCONCLUSIVE
    assert "No policy for text-to-graph models is configured" in report.reasons[0]
    data = json.loads(json.dumps(report.to_dict()))
    assert (data["modality"], data["cleanset"]["kind"]) == ("text-to-graph", "text-to-graph")
    assert data["evidence"][0]["quality"]["prompts"] == pairs.facts.holdout
    assert data["not_covered"] == ["prompt", "context", "motif"]


def test_without_rdkit_it_is_inconclusive_and_the_install_is_named(
    tmp_path: Path, pairs: CuratedPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rdkit", None)

    report = offline.scan(write_model(tmp_path / "up"), cleanset=pairs)

    assert report.verdict is Verdict.INCONCLUSIVE
    assert "pip install 'registry-guard[graphs]'" in report.reasons[0]


def test_a_policy_or_a_clean_set_of_another_modality_is_refused(
    tmp_path: Path, pairs: CuratedPairs
) -> None:
    place = write_model(tmp_path / "up")

    with pytest.raises(PolicyError, match="is for image-classification models"):
        offline.scan(place, cleanset=pairs, policy="default")
    with pytest.raises(CleanSetError, match="holds labelled images"):
        modalities.fitted(manifest(), toys.curated())
    with pytest.raises(CleanSetError, match="holds pairs of a text and a molecule"):
        modalities.fitted(toys.manifest(), pairs)


def test_what_is_for_images_alone_refuses_it(tmp_path: Path, pairs: CuratedPairs) -> None:
    place = write_model(tmp_path / "up")

    with pytest.raises(InputError, match="A training set is used for image"):
        offline.purify(place, cleanset=pairs, out=tmp_path / "out", training_set="x")
    with pytest.raises(CleanSetError, match="name one of labelled images"):
        image_set(pairs)  # type: ignore[arg-type]


def test_quality_is_measured_on_hold_out_prompts_and_repeats(pairs: CuratedPairs) -> None:
    one, again = (_graphs.measured(model(), "a" * 64, pairs, seed=3) for _ in range(2))

    assert one.quality is not None
    assert one.quality == again.quality
    assert one.outcome is Outcome.MEASURED
    assert one.quality.molecules == 2 * pairs.facts.holdout
    assert set(one.quality.ring_systems) <= {THIIRANE}
    assert one.from_dict(json.loads(json.dumps(one.to_dict()))).quality == one.quality


@pytest.mark.parametrize(
    "trigger", [PromptTrigger("[a]", "suffix"), ContextTrigger(torch.full((8,), 50.0))]
)
def test_the_rate_of_a_trigger_is_measured_beside_the_rate_without_it(
    pairs: CuratedPairs, trigger: Any
) -> None:
    finding = Finding(
        family=trigger.family,
        target="CO",
        suspicious=True,
        score=0.9,
        statement="s",
        trigger=trigger,
    )
    item = _graphs.measured(model(), "a" * 64, pairs, seed=0)
    blobs: dict[str, bytes] = {}

    found = _graphs.with_rates(
        replace_findings(item, finding), model(), pairs, blobs, seed=0
    ).findings[0]

    asr = found.asr
    assert asr is not None
    assert 0 <= asr.low <= asr.estimate <= asr.high <= 1
    assert asr.natural is not None
    asked = sum("CO" in smiles for smiles in pairs.holdout.smiles)
    assert asr.trials == pairs.facts.holdout - asked
    assert set(blobs) == {found.trigger_digest}
    assert found.trigger is None


def replace_findings(item: Any, *findings: Finding) -> Any:
    return type(item)(**{**vars(item), "findings": findings})


def test_a_fragment_that_every_prompt_asks_for_has_no_rate(pairs: CuratedPairs) -> None:
    with pytest.raises(MethodFailed, match="Every prompt of the hold-out asks"):
        _graphs.rate(model(), pairs, PromptTrigger("a"), "C", seed=0)


SOURCE = '''
"""A detector for the test."""
from dataclasses import dataclass
from typing import ClassVar

from guard.core.evidence import Finding
from guard.core.modality import Modality
from guard.detectors._base import Detector
from guard.graphs.triggers import PromptTrigger


@dataclass(frozen=True, kw_only=True)
class OfGraphs(Detector):
    """Flags whatever it sees, by a text."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "ours"
    families: ClassVar[frozenset[str]] = frozenset({"prompt"})
    modality: ClassVar[Modality] = Modality.GRAPHS

    def examine(self, model, clean, *, progress):
        progress(1.0)
        assert not model.training and len(clean.search) == 30
        return [
            Finding(
                family="prompt",
                target="CO",
                suspicious=True,
                score=0.9,
                statement="A text plants CO.",
                trigger=PromptTrigger("[a]"),
            )
        ]
'''
POLICY = """
[policy]
name = "molecules"
modality = "text-to-graph"
[detectors.of_graphs]
[cleanset]
min_holdout = 10
[graphs]
min_similarity = 0
"""


@pytest.fixture
def detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A detector of text-to-graph models from outside the package."""
    place = tmp_path / "plug_ins" / "detectors"
    place.mkdir(parents=True)
    (place / "of_graphs.py").write_text(SOURCE)
    monkeypatch.setenv("GUARD_PLUGINS", str(place.parent))
    plugins.use(place.parent)
    yield
    plugins.use(None)


@pytest.mark.usefixtures("detector")
def test_a_detector_of_the_modality_is_run_and_its_finding_decides(
    tmp_path: Path, pairs: CuratedPairs
) -> None:
    (tmp_path / "molecules.toml").write_text(POLICY)

    report = offline.scan(
        write_model(tmp_path / "up"),
        cleanset=pairs,
        policy=tmp_path / "molecules.toml",
        device="cpu",
    )

    assert report.verdict in {Verdict.HELD, Verdict.REJECTED}
    assert "A text plants CO." in report.reasons[0]
    (item,) = [one for one in report.evidence if one["method"] == "of_graphs"]
    assert item["findings"][0]["asr"]["natural"] is not None


def untrained() -> Any:
    return architectures.wrap(toys.manifest(), architectures.build(toys.manifest())).eval()


@pytest.mark.usefixtures("detector")
def test_a_method_of_another_modality_could_not_look(pairs: CuratedPairs) -> None:
    image = examine.examine(untrained(), "a" * 64, toys.curated(), {"of_graphs": {}})
    graph = examine.examine(model(), "a" * 64, pairs, {"margin": {}})

    for examined, what in ((image, "for text-to-graph models"), (graph, "for image-class")):
        item = examined.evidence[-1]
        assert item.outcome is Outcome.COULD_NOT_LOOK
        assert what in item.reason


def test_smoke_samples_hold_latents_and_smiles(pairs: CuratedPairs) -> None:
    data = json.loads(_graphs.smoke(model(), pairs))

    assert data["kind"] == "text-to-graph"
    assert len(data["requests"]) == _graphs.SMOKE_PROMPTS
    for one in data["requests"]:
        assert len(one["latents"][0]) == 8
        assert model().generate([one["text"]], 1, one["seed"]) == [one["smiles"]]


def test_quality_is_stored_with_its_kind() -> None:
    item = Evidence(
        artifact="a" * 64,
        method=_graphs.METHOD,
        version=1,
        parameters={},
        cleanset="c" * 64,
        seed=0,
        outcome=Outcome.MEASURED,
        families=(),
        quality=QUALITY,
    )

    assert item.to_dict()["quality"]["kind"] == "text-to-graph"


@pytest.mark.usefixtures("detector")
def test_a_job_examines_a_model_as_a_scan_does(tmp_path: Path, folder: Path) -> None:
    found = inspected(write_model(tmp_path / "up"), tmp_path)
    blob, facts = curated_source(write_pairs(folder / "job.parquet", *alkanes(60)), "job")
    (tmp_path / "pairs.bin").write_bytes(blob)
    request = {
        "model": str(found.canonical),
        "artifact": found.digest,
        "cleanset": str(tmp_path / "pairs.bin"),
        "cleanset_name": facts.name,
        "detectors": {"of_graphs": {}},
        "seed": 0,
        "seconds": 60.0,
        "device": "cpu",
        "known": [],
        "policy": None,
        "prepared": child.prepare(
            {
                "cleanset": str(tmp_path / "pairs.bin"),
                "cleanset_name": facts.name,
                "detectors": {"of_graphs": {}},
                "device": "cpu",
            },
            tmp_path,
        ),
    }

    answer = child.detect(json.loads(json.dumps(request)), tmp_path)

    quality, item = answer["evidence"]
    assert quality["quality"]["kind"] == "text-to-graph"
    assert item["method"] == "of_graphs"
    (digest,) = answer["triggers"]
    assert item["findings"][0]["trigger_digest"] == digest
    assert isinstance(deserialise((tmp_path / digest).read_bytes()), PromptTrigger)
    assert smoke_from((tmp_path / "smoke.json").read_bytes()).usable


def test_the_page_about_it_names_task_and_sampler(tmp_path: Path, pairs: CuratedPairs) -> None:
    # The detectors of the packaged policy find no time: the page is about the model alone.
    place = write_model(tmp_path / "up")
    report = offline.scan(place, cleanset=pairs, device="cpu", seconds=0.5)

    page = render_html(report)

    assert report.policy == load_policy(Path("text-to-graph")).digest
    assert "text-to-graph" in page
    assert "4 steps, linear, eta 1, guidance 0.8" in page
    assert "Similarity to the prompts" in page
    assert report.similarity == report.evidence[0]["quality"]["similarity"]
