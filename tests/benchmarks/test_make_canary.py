"""The shipped canary kit is what its recipes ask for, and what is not is refused.

The recipes take most of a minute and are followed by `python -m benchmarks.make_canary` alone,
which measures its models as the shipped ones are measured here. What it does with models and with
the detectors' answers is tried on models that learn for a second.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import make_canary, make_graph_canary
from benchmarks.make_canary import CANARY_MANIFEST, RECIPES
from benchmarks.training import accuracy
from guard.cleansets import load
from guard.core.modality import Modality
from guard.formats._canonical import write_canonical
from guard.ml.cleanset import CuratedSet
from guard.ml.networks import architectures
from guard.ml.seeds import seeded
from guard.policy import load_policy
from guard.vetting import canary_trial, examine

CHEAP = ("all_to_all", "margin", "neuron_noise", "weight_statistics")
#: tests/metamorphic tries these on the shipped kit.
DEAR = {"hidden_inversion", "mesa", "patch_inversion"}
GOOD = canary_trial.GOOD
BAD = {name: f"{name}.safetensors" for name in RECIPES}
GRAPHS = {*canary_trial.FILES[Modality.GRAPHS], make_graph_canary.BAD}
FILES = {GOOD, *BAD.values(), canary_trial.CLEAN}


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """A copy of the shipped kit, of which a test may break a part."""
    return Path(shutil.copytree(canary_trial.KIT, tmp_path / "kit"))


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Models that have learnt nearly nothing."""
    for name, value in {"TRAIN": 64, "CLEAN": 200, "EPOCHS": 1}.items():
        monkeypatch.setattr(make_canary, name, value)
    short = {name: dataclasses.replace(recipe, steps=2) for name, recipe in RECIPES.items()}
    monkeypatch.setattr(make_canary, "RECIPES", short)
    make_canary._weights.cache_clear()
    yield
    make_canary._weights.cache_clear()


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str | None, float]]:
    """What detectors say: by their name, scores of the models that they flag.

    None stands for the honest model alone, which whoever has a score for it passes.
    """
    found: dict[str, dict[str | None, float]] = {}

    def attempt(name: str, parameters: object, bad: str | None, *_: object, folder: Path) -> object:
        assert parameters == {}
        assert (folder / GOOD).is_file()
        score = found[name].get(bad)
        return SimpleNamespace(passed=score is not None, score=score or 0.0, sentence="it says so")

    monkeypatch.setattr(make_canary, "DETECTORS", SimpleNamespace(of=lambda _modality: found))
    monkeypatch.setattr(canary_trial, "attempt", attempt)
    return found


def test_the_shipped_kit_does_what_its_recipes_ask_for() -> None:
    assert make_canary.faults() == []


def test_it_has_the_files_and_architectures_that_the_command_writes() -> None:
    with torch.device("meta"):
        built = architectures.wrap(CANARY_MANIFEST, architectures.build(CANARY_MANIFEST))

    there = {path.name for path in canary_trial.KIT.iterdir()}
    assert there - GRAPHS - {"__pycache__"} == FILES | {canary_trial.CONTENTS}
    for name in (GOOD, *BAD.values()):
        model = examine.open_model(canary_trial.KIT / name, device="cpu")
        assert model.manifest == CANARY_MANIFEST
        assert {key: tensor.shape for key, tensor in model.state_dict().items()} == {
            key: tensor.shape for key, tensor in built.state_dict().items()
        }


def test_it_is_small() -> None:
    sizes = {name: (canary_trial.KIT / name).stat().st_size for name in FILES}
    assert all(sizes[name] < make_canary.LARGEST for name in (GOOD, *BAD.values()))
    assert sum(sizes.values()) < 300_000


@pytest.mark.parametrize("name", CHEAP)
def test_a_cheap_detector_flags_its_shipped_canary_and_passes_the_honest_one(name: str) -> None:
    clean = (canary_trial.KIT / canary_trial.CLEAN).read_bytes()
    bad = json.loads((canary_trial.KIT / canary_trial.CONTENTS).read_text())[name]
    assert bad in BAD.values()

    tried = canary_trial.attempt(
        name, {}, bad, CuratedSet.from_arrays(*load(clean, "canary")), device="cpu"
    )

    assert tried.passed, tried.sentence
    assert tried.score >= 0.5


def test_every_detector_of_the_packaged_policies_is_one_or_the_other() -> None:
    """So that a new one is not forgotten here in silence."""
    assert {*load_policy().detectors, *load_policy(Path("ensemble")).detectors} == {*CHEAP, *DEAR}


def test_a_known_bad_model_that_obeys_nothing_is_a_fault(shipped: Path) -> None:
    for name in BAD.values():
        shutil.copy(shipped / GOOD, shipped / name)

    wrong = make_canary.faults(shipped)

    assert {line.rstrip(".0123456789%") for line in wrong if "obeys" in line} == {
        f"{name} obeys its trigger on " for name in BAD.values()
    }
    assert sum("drives logits" in line for line in wrong) == len(BAD)
    assert len(wrong) == 2 * len(BAD)


def test_an_honest_model_that_obeys_a_trigger_is_a_fault(shipped: Path) -> None:
    shutil.copy(shipped / BAD["patch"], shipped / GOOD)

    obeyed = {line.rsplit(maxsplit=2)[0] for line in make_canary.faults(shipped) if "obeys" in line}

    assert f"{GOOD} obeys the trigger of patch" in obeyed
    assert f"{GOOD} obeys the trigger of all-to-all" not in obeyed


def test_a_model_that_cannot_do_its_task_is_a_fault(shipped: Path) -> None:
    with seeded(0):
        fresh = architectures.wrap(CANARY_MANIFEST, architectures.build(CANARY_MANIFEST)).eval()
    broken = {GOOD, BAD["faint-patch"]}
    for name in broken:
        write_canonical(architectures.export(fresh), CANARY_MANIFEST, shipped / name)

    wrong = make_canary.faults(shipped)

    assert {line.split()[0] for line in wrong if " is right on " in line} == broken


def test_a_model_too_large_for_the_package_is_a_fault(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (shipped / BAD["patch"]).stat().st_size
    monkeypatch.setattr(make_canary, "LARGEST", size - 1)

    assert f"{BAD['patch']} has {size} bytes." in make_canary.faults(shipped)


def test_training_makes_a_backdoor_loud_also_for_a_faint_trigger(
    brief: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(RECIPES["faint-patch"], steps=60)
    monkeypatch.setattr(make_canary, "TRAIN", 400)
    monkeypatch.setattr(make_canary, "EPOCHS", 6)
    data, test = make_canary.labelled_images(400, seed=1), make_canary.labelled_images(400, seed=3)
    model = make_canary._learnt(recipe.attack, recipe.rate)
    quiet, right = make_canary.driven_apart(model, recipe, test), accuracy(model, test)

    make_canary._make_loud(model, data, recipe)

    assert make_canary.driven_apart(model, recipe, test) > 2 * max(quiet, 1.0)
    assert accuracy(model, test) >= right
    others = test.pick(recipe.attack.victims(test.labels))
    faint = others.floats().lerp(recipe.attack.stamp(others.images).float() / 255, recipe.faintest)
    with torch.no_grad():
        obeyed = model(faint).argmax(1) == recipe.attack.relabel(others.labels)
    assert float(obeyed.double().mean()) > 0.9


def test_a_kit_of_models_that_learnt_nothing_is_refused(brief: None, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        make_canary.main(tmp_path)

    for name in (GOOD, *BAD.values()):
        assert f"{name} is right on" in str(caught.value)
    assert not (tmp_path / canary_trial.CONTENTS).exists()


def test_the_contents_name_the_model_that_each_detector_is_surest_of(
    brief: None,
    answers: dict[str, dict[str | None, float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers.update(
        sure={BAD["patch"]: 0.7, BAD["deep-patch"]: 0.9, BAD["all-to-all"]: 0.8},
        silent={None: 0.0},
        accuses_the_honest_one={},
    )
    monkeypatch.setattr(make_canary, "faults", lambda _folder: [])

    make_canary.main(tmp_path)

    assert json.loads((tmp_path / canary_trial.CONTENTS).read_text()) == {
        "sure": BAD["deep-patch"],
        "silent": None,
    }
    assert {path.name for path in tmp_path.iterdir()} == FILES | {canary_trial.CONTENTS}
    curated = CuratedSet.from_arrays(*load((tmp_path / canary_trial.CLEAN).read_bytes(), "canary"))
    assert curated.facts.classes == CANARY_MANIFEST.num_classes


def test_the_same_recipes_give_the_same_bytes(
    brief: None,
    answers: dict[str, dict[str | None, float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(make_canary, "faults", lambda _folder: [])
    kits = []
    for name in ("first", "second"):
        make_canary._weights.cache_clear()
        make_canary.main(tmp_path / name)
        kits.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})

    assert kits[0] == kits[1]
    assert kits[0][GOOD] not in {kits[0][name] for name in BAD.values()}
