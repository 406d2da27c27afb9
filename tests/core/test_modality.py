"""Each method states the models that it is for, readable without running it."""

from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from guard.core import shelf
from guard.core.errors import MethodFailed, PolicyError, UnknownMethod
from guard.core.modality import Modality, require
from guard.core.shelf import Shelf
from guard.core.states import Family, not_covered
from guard.policy import GraphRule, Policy, default_policy, load_policy
from guard.policy.load import policy_from
from tests.graph_toys import manifest

STATED = b"class OfGraphs:\n    modality = 'text-to-graph'\n"


@pytest.fixture
def outside(request: pytest.FixtureRequest) -> Any:
    """Puts the source of a detector and a defense `of_graphs` on the shelves."""

    def put(source: bytes) -> None:
        for package in ("guard.detectors", "guard.defenses"):
            shelf.extend(package, {"of_graphs": lambda: ModuleType("m")}, {"of_graphs": source})
            request.addfinalizer(partial(shelf.extend, package, {}))

    return put


@pytest.mark.parametrize("package", ["detectors", "defenses", "retrainers", "sifters"])
def test_every_method_is_what_its_file_states(package: str) -> None:
    methods: Shelf[Any] = Shelf(f"guard.{package}")

    for name in methods.names():
        assert methods.modality(name) is methods.get(name).modality
    assert set(methods.names()) >= set(methods.of(Modality.IMAGES))


@pytest.mark.parametrize(
    ("source", "modality"),
    [
        (STATED, Modality.GRAPHS),
        (b"class OfGraphs:\n    modality: ClassVar = Modality.GRAPHS\n", Modality.GRAPHS),
        (b"class OfGraphs:\n    x = 1  # modality\n", Modality.IMAGES),
        (b"class Other:\n    modality = 'text-to-graph'\n", Modality.IMAGES),
    ],
)
def test_the_modality_is_read_without_running_the_file(
    outside: Any, source: bytes, modality: Modality
) -> None:
    outside(source)

    assert Shelf[Any]("guard.detectors").modality("of_graphs") is modality


@pytest.mark.parametrize("source", [b"class OfGraphs:\n    modality = f()\n", b"modality = ("])
def test_what_cannot_be_read_is_refused(outside: Any, source: bytes) -> None:
    outside(source)

    with pytest.raises(UnknownMethod):
        Shelf[Any]("guard.detectors").modality("of_graphs")
    with pytest.raises(UnknownMethod, match="not in"):
        Shelf[Any]("guard.detectors").modality("nothing")


def rules(**head: Any) -> dict[str, Any]:
    return {"policy": {"name": "p", **head}, "detectors": {"of_graphs": {}}}


def test_a_policy_names_methods_of_its_own_modality_alone(outside: Any) -> None:
    outside(STATED)

    policy = policy_from({**rules(modality="text-to-graph"), "graphs": {"min_similarity": 0.5}})

    assert policy.modality is Modality.GRAPHS
    assert policy.graphs == GraphRule(min_similarity=0.5)
    assert Policy.from_dict(policy.to_dict()) == policy
    for data, named in (
        (rules(), "detector 'of_graphs', which is for text-to-graph"),
        (
            {
                **rules(modality="text-to-graph"),
                "purify": {"defenses": [{"name": "clp"}]},
            },
            "defense 'clp', which is for image-classification",
        ),
    ):
        with pytest.raises(PolicyError, match=named):
            policy_from(data)


def test_other_modalities_and_rules_are_refused() -> None:
    with pytest.raises(PolicyError, match=r"policy\.modality must be one of"):
        policy_from(rules(modality="text-to-image"))
    with pytest.raises(PolicyError, match="is for policies of modality text-to-graph"):
        policy_from({**rules(), "graphs": {"rare": 0.5}})


def test_the_policy_of_a_modality_without_one_names_no_detector() -> None:
    assert default_policy(Modality.IMAGES) == load_policy()
    none = Policy.none(Modality.GRAPHS)

    assert not none.detectors
    assert Policy.from_dict(none.to_dict()) == none


def test_a_method_refuses_a_model_of_another_modality() -> None:
    require(Modality.IMAGES, object(), "A")
    require(Modality.GRAPHS, SimpleNamespace(manifest=manifest()), "A")
    with pytest.raises(MethodFailed, match="A is for image-classification models"):
        require(Modality.IMAGES, SimpleNamespace(manifest=manifest()), "A")


def test_a_model_is_not_blamed_for_families_that_it_cannot_have() -> None:
    assert Family.PROMPT not in not_covered(())
    assert not_covered(("prompt",), Modality.GRAPHS) == ["context", "motif"]
