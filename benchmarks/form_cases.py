"""The forms in which one tiny network is uploaded, each with the answer that it must get.

Tests run every case through both ways in; docs/forms.md lists them (`benchmarks.make_forms_doc`).
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guard.core.digests import canonical_json
from guard.formats._write import write_tensors
from guard.ml.seeds import seeded

CONFIG: dict[str, Any] = {
    "architecture": "cifar_resnet",
    "num_classes": 4,
    "model_args": {"depths": [1, 1, 1], "width": 4},
    "pretrained_cfg": {"input_size": [3, 16, 16], "mean": [0.5] * 3, "std": [0.25] * 3},
}
ZIP, OLD, SAFE = "zip", "old", "safetensors"
State = dict[str, Tensor]


@dataclass(frozen=True)
class FormCase:
    """One form: what is made of the state dict and of `config.json`, and the answer.

    `code` is that of the refusal, empty where the form is taken; `kinds` are the containers that
    can hold it, `file` the name of the weights without its suffix.
    """

    name: str
    remark: str
    value: Callable[[State], Any] = dict
    config: Callable[[dict[str, Any]], bytes] = canonical_json
    code: str = ""
    kinds: tuple[str, ...] = (ZIP, OLD, SAFE)
    file: str = "model"
    beside: tuple[str, ...] = ()
    layout: Callable[[State, Path], None] | None = None  # writes several files of weights itself
    rounded: bool = False
    other: dict[str, Any] = field(default_factory=dict)


def state() -> State:
    """The network's own tensors: float32, counters int64."""
    from guard.core.manifest import Manifest
    from guard.ml.networks import architectures

    with seeded(0):
        return architectures.export(architectures.build(Manifest.from_dict(CONFIG)))


def write(case: FormCase, kind: str, folder: Path) -> None:
    """Put the case's files into `folder`."""
    (folder / "config.json").write_bytes(case.config(json.loads(json.dumps(CONFIG))))
    for name in case.beside:
        (folder / name).write_bytes(b"nothing to vet")
    if case.layout is not None:
        case.layout(state(), folder)
        return
    value = case.value(state())
    weights = folder / (case.file + (".safetensors" if kind == SAFE else ".ckpt"))
    if kind == SAFE:
        tensors = {name: part for name, part in value.items() if isinstance(part, Tensor)}
        with weights.open("wb") as file:
            write_tensors(tensors, {}, file.write)
    else:
        torch.save(value, weights, _use_new_zipfile_serialization=kind == ZIP)


def _as(dtype: torch.dtype) -> Callable[[State], State]:
    return lambda own: {
        name: part.to(dtype) if part.is_floating_point() else part for name, part in own.items()
    }


def _counters(dtype: torch.dtype) -> Callable[[State], State]:
    return lambda own: {
        name: part if part.is_floating_point() else part.to(dtype) for name, part in own.items()
    }


def _under(prefix: str, **more: Any) -> Callable[[State], Any]:
    return lambda own: {**{prefix + name: part for name, part in own.items()}, **more}


def _twice(own: State) -> State:
    return {f"{name}.{key}": part for name in ("student", "teacher") for key, part in own.items()}


def _cfg(**changes: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda base: canonical_json(
        {**base, "pretrained_cfg": {**base["pretrained_cfg"], **changes}}
    )


def _without(*names: str) -> Callable[[dict[str, Any]], bytes]:
    return lambda base: canonical_json(
        {
            **base,
            "pretrained_cfg": {
                key: part for key, part in base["pretrained_cfg"].items() if key not in names
            },
        }
    )


def _top(**changes: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda base: canonical_json({**base, **changes})


def _timm_training(own: State) -> Any:
    return {
        "epoch": 3,
        "arch": "cifar_resnet",
        "state_dict": own,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
        "args": argparse.Namespace(lr=0.1, model="cifar_resnet"),
    }


def _sharded(change: Callable[[list[State], dict[str, str]], Any]) -> Callable[[State, Path], None]:
    """Two shards and their index, after `change` has changed their tensors and its weight_map."""

    def layout(own: State, folder: Path) -> None:
        names = [f"model-0000{place}-of-00002.safetensors" for place in (1, 2)]
        half = len(own) // 2
        shards: list[State] = [dict(list(own.items())[:half]), dict(list(own.items())[half:])]
        listed = {name: file for file, part in zip(names, shards, strict=True) for name in part}
        change(shards, listed)
        for file, part in zip(names, shards, strict=True):
            if part:
                with (folder / file).open("wb") as target:
                    write_tensors(part, {}, target.write)
        if listed:
            index = {"metadata": {"total_size": 1.5}, "weight_map": listed}
            (folder / "model.safetensors.index.json").write_bytes(canonical_json(index))

    return layout


def _pickled_shards(*, indexed: bool = True, zipped: bool = True) -> Callable[[State, Path], None]:
    """Two shards as `save_pretrained(safe_serialization=False)` writes them, and their index."""

    def layout(own: State, folder: Path) -> None:
        listed = {}
        for place, part in enumerate((dict(list(own.items())[:4]), dict(list(own.items())[4:])), 1):
            name = f"pytorch_model-0000{place}-of-00002.bin"
            torch.save(part, folder / name, _use_new_zipfile_serialization=zipped)
            listed.update(dict.fromkeys(part, name))
        if indexed:
            index = {"metadata": {"total_size": 1.5}, "weight_map": listed}
            (folder / "pytorch_model.bin.index.json").write_bytes(canonical_json(index))

    return layout


PICKLED = (ZIP, OLD)
CASES = (
    FormCase("a plain state dict", "as it is"),
    FormCase("float16 weights", "read as float32", _as(torch.float16), rounded=True),
    FormCase("bfloat16 weights", "read as float32", _as(torch.bfloat16), rounded=True),
    FormCase("float64 weights", "read as float32", _as(torch.float64)),
    FormCase("int32 counters", "read as int64", _counters(torch.int32)),
    FormCase("float counters", "read as int64", _counters(torch.float32)),
    FormCase(
        "no num_batches_tracked",
        "counted as 0",
        lambda own: {n: t for n, t in own.items() if not n.endswith("num_batches_tracked")},
    ),
    *(
        FormCase(f"prefix `{prefix}`", "left out", _under(prefix))
        for prefix in (
            "module.",
            "_orig_mod.",
            "model.",
            "backbone.",
            "net.",
            "module._orig_mod.",
            "_orig_mod.module.",
            "model.net.module.",
        )
    ),
    FormCase(
        "a counter beside the prefix (weight averaging)",
        "left out",
        _under("module.", n_averaged=torch.tensor(5)),
    ),
    FormCase(
        "a compiled part: `layer1._orig_mod.`",
        "left out",
        lambda own: {n.replace("layer1.", "layer1._orig_mod."): t for n, t in own.items()},
    ),
    FormCase(
        "`epoch=3-step=100.ckpt`, as Lightning writes",
        "its state dict",
        lambda own: {"state_dict": _under("model.")(own), "epoch": 3, "global_step": 100},
        kinds=PICKLED,
        file="epoch=3-step=100",
    ),
    FormCase(
        "timm's training checkpoint with `argparse.Namespace`",
        "its state dict; the Namespace is not read",
        _timm_training,
        kinds=PICKLED,
    ),
    FormCase(
        "two state dicts, flat",
        "name one as `guard.state_dict`",
        _twice,
        code="ambiguous_checkpoint",
    ),
    FormCase(
        "two state dicts, nested",
        "name one as `guard.state_dict`",
        lambda own: {"state_dict": own, "state_dict_ema": own},
        kinds=PICKLED,
        code="ambiguous_checkpoint",
    ),
    FormCase(
        "two state dicts, `guard.state_dict` names one",
        "that one",
        _twice,
        _top(guard={"state_dict": "teacher"}),
    ),
    FormCase(
        "`guard.state_dict` names none of the file's",
        "name one that is there",
        _twice,
        _top(guard={"state_dict": "ema"}),
        code="manifest_bad_state_dict",
    ),
    FormCase(
        "weights beside the network",
        "save the network alone",
        _under("model.", **{"criterion.weight": torch.ones(4)}),
        code="beside_the_network",
    ),
    FormCase(
        "int8 weights",
        "save as floats",
        lambda own: {n: t.to(torch.int8) for n, t in own.items()},
        code="weights_not_floats",
    ),
    FormCase(
        "a counter that is a fraction",
        "save the model again",
        lambda own: {n: t if t.dim() else torch.tensor(0.5) for n, t in own.items()},
        code="counter_not_whole",
    ),
    FormCase(
        "float64 beyond float32",
        "train the model again",
        lambda own: {n: t.double() + 1e300 if t.dim() else t for n, t in own.items()},
        code="not_finite",
    ),
    FormCase(
        "other num_classes",
        "correct num_classes",
        config=_top(num_classes=7),
        code="architecture_mismatch",
    ),
    FormCase(
        "other channels",
        "correct input_size",
        config=_cfg(input_size=[1, 16, 16], mean=0.5, std=0.25),
        code="architecture_mismatch",
    ),
    FormCase(
        "another architecture",
        "correct architecture",
        config=_top(architecture="test_resnet", model_args={}),
        code="architecture_mismatch",
    ),
    FormCase(
        "`config.json` with a byte order mark",
        "left out",
        config=lambda base: b"\xef\xbb\xbf" + canonical_json(base),
    ),
    FormCase(
        "a name with a timm tag",
        "the tag is left out",
        config=_top(architecture="cifar_resnet.a1_in1k"),
    ),
    FormCase(
        "mean and std for 0..255",
        "divided by 255",
        config=_cfg(mean=[127.5] * 3, std=[63.75] * 3),
    ),
    FormCase(
        "mean for 0..255, std for 0..1",
        "write both for 0..1",
        config=_cfg(mean=[127.5] * 3),
        code="manifest_mixed_scale",
    ),
    FormCase(
        "no mean and std",
        "0 and 1; the verdict names it",
        config=_without("mean", "std"),
        other={"assumed": ["mean", "std"]},
    ),
    FormCase(
        "`config.json` of a transformers model that is not listed below",
        "upload timm's network",
        config=lambda _: canonical_json({"model_type": "beit", "num_labels": 4}),
        code="manifest_transformers",
    ),
    FormCase(
        "a transformers model with another head, activation or input than timm's",
        "what the sentence says",
        config=lambda _: canonical_json({"model_type": "vit", "architectures": ["ViTModel"]}),
        code="manifest_transformers",
    ),
    FormCase(
        "`config.json` of one transformers model, weights of another",
        "save both together",
        config=lambda _: canonical_json({"model_type": "resnet", "image_size": 16}),
        code="architecture_mismatch",
    ),
    FormCase(
        "shards with `model.safetensors.index.json`",
        "read as one state dict",
        kinds=(SAFE,),
        layout=_sharded(lambda _shards, _listed: None),
    ),
    FormCase(
        "shards without their index",
        "upload the index beside them",
        kinds=(SAFE,),
        layout=_sharded(lambda _shards, listed: listed.clear()),
        code="shard_alone",
    ),
    FormCase(
        "an index without one of its shards",
        "upload the missing shard",
        kinds=(SAFE,),
        layout=_sharded(lambda shards, _listed: shards[1].clear()),
        code="shards_incomplete",
    ),
    FormCase(
        "a tensor that two shards hold",
        "save the model again",
        kinds=(SAFE,),
        layout=_sharded(lambda shards, _listed: shards[1].update(shards[0])),
        code="shards_contradict",
    ),
    FormCase(
        "a tensor that the index does not list",
        "save the model again",
        kinds=(SAFE,),
        layout=_sharded(lambda _shards, listed: listed.popitem()),
        code="shards_contradict",
    ),
    FormCase(
        "an index that names a file outside its folder",
        "save the model again",
        kinds=(SAFE,),
        layout=_sharded(
            lambda _shards, listed: listed.update(more="../model-00003-of-00003.safetensors")
        ),
        code="shards_bad_index",
    ),
    FormCase(
        "shards with `pytorch_model.bin.index.json`",
        "read as one state dict",
        kinds=(ZIP,),
        layout=_pickled_shards(),
    ),
    FormCase(
        "the same without the index",
        "upload the index beside them",
        kinds=(ZIP,),
        layout=_pickled_shards(indexed=False),
        code="shard_alone",
    ),
    FormCase(
        "shards of the old layout",
        "save as safetensors",
        kinds=(OLD,),
        layout=_pickled_shards(zipped=False),
        code="shards_of_pickles",
    ),
    FormCase(
        "a folder as a hub download leaves it",
        "only the weights are read",
        beside=(
            ".gitattributes",
            "LICENSE",
            "cat.png",
            "README.md",
            "notes.txt",
            "training_args.bin",
            "optimizer.pt",
        ),
    ),
)
