"""From the tensors of a transformers image classifier to those of the same network in timm.

Most are only renamed. Queries, keys and values are one matrix in timm, and the normalisation of
ConvNeXt V2 has no empty dimensions there. Names are those that transformers writes into files, and
those that its 5th version gives the modules in memory.
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch

from guard.core.errors import ArtifactRejected

if TYPE_CHECKING:
    from torch import Tensor

_Rules = tuple[tuple[str, str | None], ...]  # None: no part of the classifier
_QUERY = re.compile(r"(.*\battn\.)q(\.(?:weight|bias))")
_BLOCK: _Rules = (
    ("{b}.layernorm_before.{p}", "{b}.norm1.{p}"),
    ("{b}.layernorm_after.{p}", "{b}.norm2.{p}"),
    ("{b}.attention.output.dense.{p}", "{b}.attn.proj.{p}"),
    ("{b}.intermediate.dense.{p}", "{b}.mlp.fc1.{p}"),
    ("{b}.output.dense.{p}", "{b}.mlp.fc2.{p}"),
    ("{b}.attention.o_proj.{p}", "{b}.attn.proj.{p}"),
    ("{b}.mlp.fc1.{p}", "{b}.mlp.fc1.{p}"),
    ("{b}.mlp.fc2.{p}", "{b}.mlp.fc2.{p}"),
    *(
        (f"{{b}}.attention.{part[0]}_proj.{{p}}", f"{{b}}.attn.{part[0]}.{{p}}")
        for part in ("query", "key", "value")
    ),
)


def _blocks(theirs: tuple[str, ...], ours: str, inner: str) -> _Rules:
    """The rules of a transformer's block; `inner` is where queries, keys and values lie."""
    own: _Rules = (
        *_BLOCK,
        *(
            (f"{{b}}.attention.{inner}.{part}.{{p}}", f"{{b}}.attn.{part[0]}.{{p}}")
            for part in ("query", "key", "value")
        ),
    )
    return tuple(
        (old.replace("{b}", block), new and new.replace("{b}", ours))
        for block in theirs
        for old, new in own
    )


_VIT: _Rules = (
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection.{p}", "patch_embed.proj.{p}"),
    ("embeddings.mask_token", None),
    ("pooler.dense.{p}", None),
    ("layernorm.{p}", "norm.{p}"),
    ("classifier.{p}", "head.{p}"),
    *_blocks(("encoder.layer.{n}", "layers.{n}"), "blocks.{n}", "attention"),
)
_CONVNEXT: _Rules = (
    ("embeddings.patch_embeddings.{p}", "stem.0.{p}"),
    ("embeddings.layernorm.{p}", "stem.1.{p}"),
    ("encoder.stages.{n}.downsampling_layer.{m}.{p}", "stages.{n}.downsample.{m}.{p}"),
    *(
        (f"encoder.stages.{{n}}.layers.{{m}}.{old}", f"stages.{{n}}.blocks.{{m}}.{new}")
        for old, new in (
            ("layer_scale_parameter", "gamma"),
            ("dwconv.{p}", "conv_dw.{p}"),
            ("layernorm.{p}", "norm.{p}"),
            ("pwconv1.{p}", "mlp.fc1.{p}"),
            ("pwconv2.{p}", "mlp.fc2.{p}"),
            ("grn.{p}", "mlp.grn.{p}"),
        )
    ),
    ("layernorm.{p}", "head.norm.{p}"),
    ("classifier.{p}", "head.fc.{p}"),
)
_SWIN_BLOCK = "encoder.layers.{n}.blocks.{m}"
_SWIN: _Rules = (
    ("embeddings.patch_embeddings.projection.{p}", "patch_embed.proj.{p}"),
    ("embeddings.norm.{p}", "patch_embed.norm.{p}"),
    ("embeddings.mask_token", None),
    *_blocks((_SWIN_BLOCK,), "layers.{n}.blocks.{m}", "self"),
    *(
        (f"{_SWIN_BLOCK}.attention.{place}.relative_position_{old}", new)
        for place in ("self", "relative_position_bias")
        for old, new in (
            ("bias_table", "layers.{n}.blocks.{m}.attn.relative_position_bias_table"),
            ("index", None),
        )
    ),
    # timm has it before the next stage, transformers after this one.
    ("encoder.layers.{n}.downsample.norm.{p}", "layers.{n+1}.downsample.norm.{p}"),
    ("encoder.layers.{n}.downsample.reduction.weight", "layers.{n+1}.downsample.reduction.weight"),
    ("layernorm.{p}", "norm.{p}"),
    ("classifier.{p}", "head.fc.{p}"),
)
_STEM, _UNIT = "embedder.embedder", "encoder.stages.{n}.layers.{m}"
_RESNET: _Rules = (
    (f"{_STEM}.convolution.weight", "conv1.weight"),
    (f"{_STEM}.normalization.{{p}}", "bn1.{p}"),
    (f"{_UNIT}.layer.{{k}}.convolution.weight", "layer{n+1}.{m}.conv{k+1}.weight"),
    (f"{_UNIT}.layer.{{k}}.normalization.{{p}}", "layer{n+1}.{m}.bn{k+1}.{p}"),
    (f"{_UNIT}.shortcut.convolution.weight", "layer{n+1}.{m}.downsample.0.weight"),
    (f"{_UNIT}.shortcut.normalization.{{p}}", "layer{n+1}.{m}.downsample.1.{p}"),
    ("classifier.1.{p}", "fc.{p}"),
)
_DEIT: _Rules = (
    ("embeddings.distillation_token", "dist_token"),
    ("cls_classifier.{p}", "head.{p}"),
    ("distillation_classifier.{p}", "head_dist.{p}"),
    *(rule for rule in _VIT if rule[0] != "classifier.{p}"),
)
_DEIT_OF_ONE_TOKEN: _Rules = (("embeddings.distillation_token", "reg_token"), *_VIT)


def _layer(theirs: str, ours: str, conv: str, norm: str) -> _Rules:
    """A convolution and the norm behind it."""
    return (
        (f"{theirs}.convolution.weight", f"{ours}{conv}.weight"),
        (f"{theirs}.normalization.{{p}}", f"{ours}{norm}.{{p}}"),
    )


#: Of MobileNet V2, the blocks of each stage after the stem's.
_REPEATS = (2, 3, 4, 3, 3, 1)
_MOBILENET: _Rules = (
    *_layer("conv_stem.first_conv", "", "conv_stem", "bn1"),
    *_layer("conv_stem.conv_3x3", "blocks.0.0.", "conv_dw", "bn1"),
    *_layer("conv_stem.reduce_1x1", "blocks.0.0.", "conv_pw", "bn2"),
    *(
        rule
        for stage, repeats in enumerate(_REPEATS)
        for block in range(repeats)
        for place in (sum(_REPEATS[:stage]) + block,)
        for part, conv, norm in (
            ("expand_1x1", "conv_pw", "bn1"),
            ("conv_3x3", "conv_dw", "bn2"),
            ("reduce_1x1", "conv_pwl", "bn3"),
        )
        for rule in _layer(f"layer.{place}.{part}", f"blocks.{stage + 1}.{block}.", conv, norm)
    ),
    *_layer("conv_1x1", "", "conv_head", "bn2"),
    ("classifier.{p}", "classifier.{p}"),
)
_FAMILIES: dict[str, _Rules] = {
    "resnet": _RESNET,
    "vit": _VIT,
    "deit": _DEIT,
    "convnext": _CONVNEXT,
    "convnextv2": _CONVNEXT,
    "swin": _SWIN,
    "deit_one_token": _DEIT_OF_ONE_TOKEN,
    "mobilenet_v2": _MOBILENET,
}
#: What the class calls the network inside, where that is not the naming's own name.
_INSIDE = {"deit_one_token": "deit"}
_PARTS = {
    "{n}": r"(?P<n>\d{1,4})",
    "{m}": r"(?P<m>\d{1,4})",
    "{k}": r"(?P<k>\d{1,4})",
    "{p}": r"(?P<p>weight|bias|running_mean|running_var|num_batches_tracked)",
}


def renamed(naming: str, held: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """The tensors of `held` under timm's names; what stands before a network's names stays.

    What no rule knows keeps its name, so that the caller refuses it.

    Args:
        naming: the key of the model in `guard.core.transformers_configs.FAMILIES`.
        held: what the file holds, any shape and dtype.

    Raises:
        ArtifactRejected: `ambiguous_checkpoint`; two tensors are the same one of the network.
    """
    rules = [(_compiled(old), new) for old, new in _FAMILIES[naming]]
    found: dict[str, Tensor] = {}
    for full, tensor in held.items():
        name = _name(full, naming, rules)
        if name in found:
            raise ArtifactRejected(
                f"The file holds {full} and another tensor which are the same one of the network; "
                "save one model with save_pretrained().",
                code="ambiguous_checkpoint",
            )
        if name is not None:
            found[name] = _flat(tensor) if ".grn." in name else tensor
    return dict(_joined(found))


def _compiled(old: str) -> re.Pattern[str]:
    pattern = re.escape(old).replace(r"\{", "{").replace(r"\}", "}")
    for part, expression in _PARTS.items():
        pattern = pattern.replace(part, expression)
    return re.compile(pattern)


def _name(full: str, naming: str, rules: "list[tuple[re.Pattern[str], str | None]]") -> str | None:
    """timm's name of one tensor: its own where no rule knows it, None where it is left out."""
    parts = full.split(".")
    for place in range(len(parts)):
        rest = ".".join(parts[place:])
        for pattern, new in rules:
            match = pattern.fullmatch(rest)
            if match is None:
                continue
            if new is None:
                return None
            before = parts[:place]
            before = before[:-1] if before[-1:] == [_INSIDE.get(naming, naming)] else before
            return ".".join((*before, _filled(new, match.groupdict())))
    return full


def _filled(new: str, values: Mapping[str, str]) -> str:
    for key, value in values.items():
        new = new.replace(f"{{{key}}}", value)
        if value.isdigit():
            new = new.replace(f"{{{key}+1}}", str(int(value) + 1))
    return new


def _flat(tensor: "Tensor") -> "Tensor":
    return tensor.reshape(-1) if tensor.shape[:-1] == (1, 1, 1) else tensor


def _joined(found: "Mapping[str, Tensor]") -> "Iterator[tuple[str, Tensor]]":
    """The tensors with queries, keys and values that fit as one; others keep their names."""
    joined: set[str] = set()
    for name, tensor in found.items():
        match = _QUERY.fullmatch(name)
        if match is None:
            continue
        names = [f"{match[1]}{part}{match[2]}" for part in "qkv"]
        if all(
            part in found
            and found[part].shape == tensor.shape
            and found[part].dtype == tensor.dtype
            for part in names
        ):
            joined.update(names)
            yield f"{match[1]}qkv{match[2]}", torch.cat([found[part] for part in names])
    yield from ((name, tensor) for name, tensor in found.items() if name not in joined)
