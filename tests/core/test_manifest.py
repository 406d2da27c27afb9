"""The `config.json` of a model is read strictly; every broken rule has its own code."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.core.errors import ManifestRejected
from guard.core.manifest import MAX_MANIFEST_BYTES, Manifest, PolarizerPlace
from guard.core.trainset import TrainingSetSource

TIMM: dict[str, Any] = {
    "architecture": "resnet18",
    "num_classes": 10,
    "num_features": 512,
    "global_pool": "avg",
    "pretrained_cfg": {
        "tag": "a1_in1k",
        "input_size": [3, 32, 32],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bicubic",
        "num_classes": 1000,
    },
}


def parse(value: Any) -> Manifest:
    return Manifest.parse(json.dumps(value).encode())


def changed(**changes: Any) -> dict[str, Any]:
    return {**TIMM, **changes}


def cfg(**changes: Any) -> dict[str, Any]:
    return changed(pretrained_cfg={**TIMM["pretrained_cfg"], **changes})


def polarized(channels: Any = 64, before: Any = "layer1.0", **more: Any) -> dict[str, Any]:
    place = {"before": before, **({} if channels is None else {"channels": channels}), **more}
    return changed(guard={"polarizer": place})


def test_what_timm_writes_is_read() -> None:
    manifest = parse(TIMM)

    assert (manifest.architecture, manifest.num_classes, manifest.input_size) == (
        "resnet18",
        10,
        (3, 32, 32),
    )
    assert manifest.mean == (0.485, 0.456, 0.406)
    assert (manifest.model_args, manifest.label_names, manifest.cleanset) == ({}, (), None)


def test_our_own_object_names_the_clean_set() -> None:
    assert parse(changed(guard={"cleanset": "mnist", "more": 1})).cleanset == "mnist"


def test_our_own_object_says_where_a_polarizer_is_and_keeps_the_clean_set() -> None:
    value = polarized(conditional=True)
    value["guard"]["cleanset"] = "mnist"
    manifest = parse(value)

    assert manifest.polarizer == PolarizerPlace(before="layer1.0", channels=64, conditional=True)
    assert manifest.cleanset == "mnist"
    assert Manifest.parse(manifest.canonical()) == manifest
    assert parse(polarized()).polarizer == PolarizerPlace(before="layer1.0", channels=64)
    assert "guard" not in parse(TIMM).to_dict()


def test_our_own_object_names_the_training_set() -> None:
    named = {"uri": "s3://sets/digits/", "digest": "a" * 64, "class_names": list("0123456789")}
    manifest = parse(changed(guard={"training_set": named}))

    assert manifest.training_set == TrainingSetSource(
        uri="s3://sets/digits/", digest="a" * 64, class_names=tuple("0123456789")
    )
    assert manifest.to_dict()["guard"] == {"training_set": named}
    short = parse(changed(guard={"training_set": {"uri": "our-digits"}}))
    assert short.to_dict()["guard"] == {"training_set": {"uri": "our-digits"}}
    assert parse(short.to_dict()) == short


def test_a_manifest_that_names_no_training_set_keeps_its_digest() -> None:
    assert b"training_set" not in parse(TIMM).canonical()
    named = parse(changed(guard={"training_set": {"uri": "x"}}))
    assert parse(changed(guard={"training_set": None})).digest == parse(TIMM).digest
    assert named.digest != parse(TIMM).digest


@pytest.mark.parametrize(
    "value",
    [
        "s3://sets/digits/",
        {},
        {"digest": "a" * 64},
        {"uri": "s3://sets/digits/", "version": 1},
        {"uri": 3},
        {"uri": ""},
        {"uri": "/etc/passwd"},
        {"uri": "../sets"},
        {"uri": "~/sets"},
        {"uri": "file:///sets"},
        {"uri": "https://example.org/set.npz"},
        {"uri": "s3://sets"},
        {"uri": "s3://Sets/x/"},
        {"uri": "s3://sets/a\nb/"},
        {"uri": "s3://sets/a\\b/"},
        {"uri": "x" * 101},
        {"uri": "digits", "digest": "a" * 63},
        {"uri": "digits", "digest": 3},
        {"uri": "digits", "class_names": list("012")},
        {"uri": "digits", "class_names": "0123456789"},
        {"uri": "digits", "class_names": [1] * 10},
        {"uri": "digits", "class_names": ["a\nb"] * 10},
    ],
)
def test_a_training_set_is_read_strictly_and_never_from_a_path(value: Any) -> None:
    with pytest.raises(ManifestRejected) as found:
        parse(changed(guard={"training_set": value}))

    assert found.value.code == "manifest_bad_training_set"


def test_mean_and_std_default_to_pictures_as_they_are_and_one_number_serves_all_channels() -> None:
    bare = parse({"architecture": "x", "num_classes": 2, "input_size": [3, 8, 8]})

    assert (bare.mean, bare.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert parse(cfg(mean=[0.5], std=0.25)).std == (0.25, 0.25, 0.25)


def test_the_number_of_classes_is_looked_for_in_three_places() -> None:
    del (bare := changed())["num_classes"]

    assert parse(bare).num_classes == 1000
    assert (
        parse(
            {"architecture": "x", "input_size": [1, 8, 8], "model_args": {"num_classes": 7}}
        ).num_classes
        == 7
    )


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "manifest_no_json"),
        (b"{", "manifest_no_json"),
        (b"\xff", "manifest_no_json"),
        (b'{"architecture": "a", "architecture": "b"}', "manifest_no_json"),
        (b'{"num_classes": NaN}', "manifest_no_json"),
        (b"[" * 100_000, "manifest_no_json"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "manifest_too_large"),
        (b"[]", "manifest_no_object"),
    ],
)
def test_what_is_no_json_object_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(ManifestRejected) as caught:
        Manifest.parse(data)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (changed(pretrained_cfg=[]), "bad_pretrained_cfg"),
        (changed(architecture=None), "bad_architecture"),
        (changed(architecture="../x"), "bad_architecture"),
        (changed(architecture="ResNet"), "bad_architecture"),
        (changed(architecture="a" * 101), "bad_architecture"),
        (changed(num_classes=1), "bad_num_classes"),
        (changed(num_classes=True), "bad_num_classes"),
        (changed(num_classes=10.0), "bad_num_classes"),
        (changed(num_classes=100_001), "bad_num_classes"),
        (changed(num_classes="10"), "bad_num_classes"),
        (cfg(input_size=None), "bad_input_size"),
        (cfg(input_size=[3, 32]), "bad_input_size"),
        (cfg(input_size=[17, 32, 32]), "bad_input_size"),
        (cfg(input_size=[3, 0, 32]), "bad_input_size"),
        (cfg(input_size=[3, 32, 4097]), "bad_input_size"),
        (cfg(input_size=[True, 32, 32]), "bad_input_size"),
        (cfg(mean=[0.5, 0.5]), "bad_mean"),
        (cfg(mean="x"), "bad_mean"),
        (cfg(mean=[True] * 3), "bad_mean"),
        (cfg(std=[0.1, 0.1, 0.0]), "bad_std"),
        (cfg(std=-1), "bad_std"),
        (cfg(std=1e-320), "bad_std"),  # 0 in float32, and the image is divided by it
        (cfg(std=1e30), "bad_std"),
        (cfg(std=1e999), "no_json"),
        (changed(model_args=[]), "bad_model_args"),
        (changed(model_args={"A-b": 1}), "bad_model_args"),
        (changed(model_args={"a": {"b": 1}}), "bad_model_args"),
        (changed(model_args={"a": [1] * 65}), "bad_model_args"),
        (cfg(mean=10**400), "bad_mean"),
        (changed(label_names=["\ud800"] * 10), "bad_label_names"),
        (changed(model_args={"a": "\x1b"}), "bad_model_args"),
        (changed(model_args={"a": "x" * 201}), "bad_model_args"),
        (changed(label_names=["a"]), "bad_label_names"),
        (changed(label_names=[1] * 10), "bad_label_names"),
        (changed(label_names=["x" * 201] * 10), "bad_label_names"),
        (changed(guard=[]), "bad_guard"),
        (changed(guard={"cleanset": 5}), "bad_guard"),
        (polarized(None, before="layer1"), "bad_polarizer"),
        (polarized(channels=0), "bad_polarizer"),
        (polarized(channels=16_385), "bad_polarizer"),
        (polarized(channels=True), "bad_polarizer"),
        (polarized(before="a..b"), "bad_polarizer"),
        (polarized(before="../x"), "bad_polarizer"),
        (polarized(before=5), "bad_polarizer"),
        (polarized(conditional=1), "bad_polarizer"),
        (polarized(more=1), "bad_polarizer"),
        (changed(guard={"polarizer": []}), "bad_polarizer"),
        (changed(guard={"polarizer": "layer1"}), "bad_polarizer"),
    ],
)
def test_every_broken_rule_has_its_code_and_a_sentence(value: Any, code: str) -> None:
    with pytest.raises(ManifestRejected) as caught:
        parse(value)
    assert caught.value.code == f"manifest_{code}"
    assert caught.value.sentence.startswith("config.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


READ = (*TIMM, "model_args", "label_names", "guard", "input_size")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(READ, JSON)))
def test_any_object_is_read_or_refused_and_what_is_read_survives_a_round_trip(
    value: dict[str, Any],
) -> None:
    try:
        manifest = Manifest.from_dict(value)
    except ManifestRejected:
        return
    assert Manifest.from_dict(manifest.to_dict()) == manifest


SIDES = st.integers(1, 64)
GOOD = st.builds(
    lambda arch, classes, size, args, labels, cleanset: {
        "architecture": arch,
        "num_classes": classes,
        "pretrained_cfg": {"input_size": [3, *size]},
        "model_args": args,
        "guard": {"cleanset": cleanset},
        **({"label_names": [f"c{n}" for n in range(classes)]} if labels else {}),
    },
    st.from_regex(r"[a-z0-9][a-z0-9_.]{0,9}", fullmatch=True),
    st.integers(2, 20),
    st.tuples(SIDES, SIDES),
    st.dictionaries(
        st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True),
        st.integers() | st.booleans(),
        max_size=3,
    ),
    st.booleans(),
    st.text(max_size=5).filter(str.isprintable),
)


@given(GOOD)
def test_the_canonical_form_is_one_byte_string_that_reads_as_the_same_manifest(
    value: dict[str, Any],
) -> None:
    manifest = parse(value)

    assert Manifest.parse(manifest.canonical()) == manifest
    assert Manifest.parse(manifest.canonical()).canonical() == manifest.canonical()
    assert Manifest.parse(manifest.canonical()).digest == manifest.digest


def test_keys_in_another_order_are_the_same_manifest_and_another_value_is_another() -> None:
    other = dict(reversed(TIMM.items()))

    assert parse(other).digest == parse(TIMM).digest
    assert parse(changed(num_classes=11)).digest != parse(TIMM).digest
