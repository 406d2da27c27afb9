"""Write tests/vetting/transformers_golden.json: small models of transformers, and their logits.

It needs the package transformers, which is no dependency of the guard (5.24.0 wrote the file):

    PYTHONPATH=FOLDER_WITH_TRANSFORMERS:. python -m benchmarks.make_transformers_golden

Weights and images follow from names, shapes and a seed (`benchmarks.transformers_golden`).
"""

import importlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.transformers_golden import FILE, PREPROCESSOR, images, weights
from guard.core.contracts import Budget
from guard.formats._write import write_tensors
from guard.formats.safetensors import Safetensors

_VIT: dict[str, Any] = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 30,
    "image_size": 16,
    "patch_size": 8,
}
_STAGES: dict[str, Any] = {"hidden_sizes": [8, 8, 12, 16], "depths": [1, 1, 2, 1], "image_size": 32}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "resnet": (
        "ResNetForImageClassification",
        "ResNetConfig",
        {"hidden_sizes": [8, 8, 12, 16], "depths": [1, 2, 1, 1], "layer_type": "basic"},
    ),
    "resnet bottleneck": (
        "ResNetForImageClassification",
        "ResNetConfig",
        {"hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 2, 1], "num_channels": 1},
    ),
    "vit": ("ViTForImageClassification", "ViTConfig", _VIT),
    "vit with other arguments": (
        "ViTForImageClassification",
        "ViTConfig",
        {**_VIT, "qkv_bias": False, "hidden_act": "quick_gelu", "layer_norm_eps": 0.01},
    ),
    "deit": ("DeiTForImageClassificationWithTeacher", "DeiTConfig", _VIT),
    "deit of one token": ("DeiTForImageClassification", "DeiTConfig", _VIT),
    "convnext": ("ConvNextForImageClassification", "ConvNextConfig", _STAGES),
    "convnext without scale": (
        "ConvNextForImageClassification",
        "ConvNextConfig",
        {**_STAGES, "layer_scale_init_value": 0.0, "layer_norm_eps": 0.01},
    ),
    "convnextv2": ("ConvNextV2ForImageClassification", "ConvNextV2Config", _STAGES),
    "swin": (
        "SwinForImageClassification",
        "SwinConfig",
        {
            "embed_dim": 8,
            "depths": [2, 1],
            "num_heads": [2, 4],
            "image_size": 32,
            "patch_size": 2,
            "window_size": 4,
            "mlp_ratio": 2.5,
        },
    ),
    "mobilenet": (
        "MobileNetV2ForImageClassification",
        "MobileNetV2Config",
        {"depth_multiplier": 0.35, "image_size": 35},
    ),
    "mobilenet without the padding of TensorFlow": (
        "MobileNetV2ForImageClassification",
        "MobileNetV2Config",
        {"depth_multiplier": 0.35, "image_size": 32, "tf_padding": False, "layer_norm_eps": 1e-5},
    ),
}


def golden(head: str, config: str, values: dict[str, Any]) -> dict[str, Any]:
    """One model: its config.json, names and shapes of its file, other names in memory, logits."""
    hub = importlib.import_module("transformers")
    model = getattr(hub, head)(getattr(hub, config)(num_labels=4, **values)).eval()
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        written = json.loads((Path(folder) / "config.json").read_text())
        with (Path(folder) / "model.safetensors").open("rb") as file:
            tensors = Safetensors().inspect(file, budget=Budget()).tensors
        shapes = {info.name: list(info.shape) for info in tensors}
        with (Path(folder) / "model.safetensors").open("wb") as file:
            write_tensors(weights(shapes), {"format": "pt"}, file.write)
        model = getattr(hub, head).from_pretrained(folder).eval()
    side = values.get("image_size", 32)
    shown = images(values.get("num_channels", 3), side)
    mean, std = PREPROCESSOR["image_mean"][0], PREPROCESSOR["image_std"][0]
    with torch.no_grad():
        logits = model((shown - mean) / std).logits
    return {
        "config": written,
        "side": side,
        "shapes": shapes,
        "memory": sorted(set(model.state_dict()) - set(shapes)),
        "logits": logits.tolist(),
    }


def main() -> None:
    """Write the file."""
    found = {name: golden(*parts) for name, parts in MODELS.items()}
    lines = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(one, separators=(',', ':'))}"
        for name, one in found.items()
    )
    FILE.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
