"""The `config.json` of a text-to-graph model is read strictly; every broken rule has a code."""

import json
from typing import Any

import pytest

from guard.core.errors import ManifestRejected
from guard.core.graph_manifest import GraphManifest
from guard.core.manifest import MAX_MANIFEST_BYTES, Manifest
from guard.core.manifests import manifest_from, parse_manifest
from guard.core.modality import Modality
from tests.core.test_manifest import TIMM
from tests.graph_toys import CONFIG, manifest

SAMPLER = CONFIG["sampler"]


def parse(value: Any) -> Any:
    return parse_manifest(json.dumps(value).encode())


def test_the_task_decides_which_manifest_is_read() -> None:
    assert isinstance(parse(CONFIG), GraphManifest)
    assert isinstance(parse(TIMM), Manifest)
    assert parse(CONFIG).modality is Modality.GRAPHS


def test_it_is_read_back_from_its_canonical_form() -> None:
    one = manifest(guard={"cleanset": "pubchem"})

    assert parse_manifest(one.canonical()) == one
    assert one.cleanset == "pubchem"
    assert one.digest != manifest().digest


@pytest.mark.parametrize("key", ["pieces", "motifs", "tokens", "sampler", "model_args"])
def test_whatever_decides_what_is_generated_is_under_the_digest(key: str) -> None:
    changed = {
        "pieces": [" the", "a", " mole"],
        "motifs": ["C1CS1", "C", "O"],
        "tokens": CONFIG["tokens"][::-1],
        "sampler": {**SAMPLER, "guidance": 0.9},
        "model_args": {"latent": 9},
    }

    assert manifest(**{key: changed[key]}).digest != manifest().digest


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"task": "text-to-image"}, "bad_task"),
        ({"task": 7}, "bad_task"),
        ({"extra": 1}, "unknown_key"),
        ({"architecture": "../x"}, "bad_architecture"),
        ({"model_args": []}, "bad_model_args"),
        ({"pieces": []}, "bad_vocabulary"),
        ({"pieces": ["a", "a"]}, "repeated_entry"),
        ({"pieces": ["a\x00"]}, "bad_vocabulary"),
        ({"pieces": ["\ud800"]}, "bad_vocabulary"),
        ({"pieces": ["a" * 41]}, "bad_vocabulary"),
        ({"pieces": ["a", 1]}, "bad_vocabulary"),
        ({"motifs": ["C", "C"]}, "repeated_entry"),
        ({"motifs": ["C.C"]}, "bad_vocabulary"),
        ({"motifs": ["C" * 81]}, "bad_vocabulary"),
        ({"motifs": ["C C"]}, "bad_vocabulary"),
        ({"motifs": "CC"}, "bad_vocabulary"),
        ({"tokens": ["a b"]}, "bad_vocabulary"),
        ({"tokens": ["^|C", "^|C"]}, "repeated_entry"),
        ({"sampler": {**SAMPLER, "steps": 0}}, "bad_sampler"),
        ({"sampler": {**SAMPLER, "steps": True}}, "bad_sampler"),
        ({"sampler": {**SAMPLER, "eta": 1.5}}, "bad_sampler"),
        ({"sampler": {**SAMPLER, "eta": "1"}}, "bad_sampler"),
        ({"sampler": {**SAMPLER, "schedule": "none"}}, "bad_sampler"),
        ({"sampler": {**SAMPLER, "seed": 1}}, "bad_sampler"),
        ({"sampler": None}, "bad_sampler"),
        ({"guard": {"cleanset": 1}}, "bad_guard"),
        ({"guard": {"training_set": {"uri": "set"}}}, "bad_guard"),
        ({"guard": []}, "bad_guard"),
    ],
)
def test_a_broken_rule_is_refused_by_its_code(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(ManifestRejected) as caught:
        manifest_from({**CONFIG, **changes})

    assert caught.value.code == f"manifest_{code}"
    assert caught.value.sentence.isprintable()


def test_neither_reader_takes_the_others_manifest() -> None:
    for reader, config in ((Manifest, CONFIG), (GraphManifest, TIMM)):
        with pytest.raises(ManifestRejected, match="this is no") as caught:
            reader.from_dict(config)
        assert caught.value.code == "manifest_other_task"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"[]", "no_object"),
        (b'{"task": "text-to-graph", "task": "image-classification"}', "no_json"),
        (b"\xff", "no_json"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "too_large"),
    ],
)
def test_what_is_no_json_object_is_refused(data: bytes, code: str) -> None:
    for reader in (parse_manifest, GraphManifest.parse):
        with pytest.raises(ManifestRejected) as caught:
            reader(data)
        assert caught.value.code == f"manifest_{code}"
