"""Make one model of a zoo: poison, train, measure, and write a complete folder or none."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from benchmarks.attacks import ATTACKS
from benchmarks.attacks._base import Attack
from benchmarks.data import Dataset
from benchmarks.fitting import Diverged, fit, steps_of
from benchmarks.training import accuracy, predictions
from benchmarks.zoo.hardness import HARD, badged, shortcut_class
from benchmarks.zoo.spec import Job, seed_of
from guard.core.manifest import Manifest
from guard.ml.cleanset import Labelled
from guard.ml.networks import architectures
from guard.ml.seeds import seeded

TRIGGER = "trigger.safetensors"


def make(
    job: Job,
    data: Dataset,
    out: Path,
    device: torch.device,
    after_epoch: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Train the model of one job and write `out/NAME/`; returns its truth.

    Steps:
        1. the network, seeded by the job
        2. the training set: hard for honest models, poisoned for backdoored ones
        3. training, under the attacker's control where the attack has one
        4. the truth: ACC, ASR and RA on test images
        5. everything into `NAME.part`, then one rename
    """
    started, seed = time.perf_counter(), seed_of(job)
    manifest = manifest_for(job, data)
    model = fresh_model(manifest, seed).to(device)
    attack = attack_for(job, data, seed, device)
    control, count = None, 0
    images, labels, index = taught(job, data, attack)
    if attack is not None and attack.controls_training:
        control = attack.control(job.rate, steps_of(job.training, len(labels)), device)
    else:
        count = len(index)
    failed = None
    try:
        fit(
            model, images, labels, job.training, seed=seed, control=control, after_epoch=after_epoch
        )
    except Diverged as error:
        failed = str(error)
    attack = control.finish() if control is not None else attack
    truth = _truth(job, data, model, attack)
    if attack is not None:
        truth["poisoned"] = count or None  # None: drawn anew in every batch
    truth |= {
        "failed": failed,
        "seconds": round(time.perf_counter() - started, 1),
        "device": device.type,
    }
    truth["works"] = truth["works"] and failed is None
    _write(out, job, manifest, model, attack, truth)
    return truth


def taught(job: Job, data: Dataset, attack: Attack | None) -> tuple[Tensor, Tensor, Tensor]:
    """The training set of a job: uint8 images, labels, and which of them are poisoned (indices).

    Where the attack controls the training, poison is drawn anew in every batch: the set has none.
    """
    train = data.train
    if job.hardness is not None:
        change = HARD[job.hardness].change
        train = change(train, data.classes, seed_of(job)) if change is not None else train
    if attack is None or attack.controls_training:
        return train.images, train.labels, torch.empty(0, dtype=torch.int64)
    return attack.poison(train.images, train.labels, job.rate)


def manifest_for(job: Job, data: Dataset) -> Manifest:
    """The manifest that the uploader writes into config.json."""
    channels, height, width = data.train.images.shape[1:]
    pixels = data.train.images.float().div(255).transpose(0, 1).flatten(1)
    return Manifest(
        architecture=job.architecture.name,
        num_classes=data.classes,
        input_size=(channels, height, width),
        mean=tuple(round(float(value), 4) for value in pixels.mean(1)),
        std=tuple(round(float(value), 4) for value in pixels.std(1)),
        model_args=dict(job.architecture.model_args),
        label_names=data.class_names,
        cleanset=data.name,
    )


def fresh_model(manifest: Manifest, seed: int) -> nn.Module:
    """The network of a manifest with fresh seeded weights; the global random state is kept."""
    with seeded(seed):
        return architectures.wrap(manifest, architectures.build(manifest))


def attack_for(job: Job, data: Dataset, seed: int, device: torch.device) -> Attack | None:
    """The job's attack, prepared; a target that the spec leaves open is drawn by the seed."""
    if job.attack is None:
        return None
    made = ATTACKS.get(job.attack)(seed=seed, **job.params)
    if made.target is not None:
        made = replace(made, target=seed % data.classes if job.target in (None, -1) else job.target)
    factory = partial(fresh_model, manifest_for(job, data), seed + 1)
    return made.prepare(data.train, data.classes, factory, device)


def measure(model: nn.Module, attack: Attack, test: Labelled) -> tuple[float, float, int]:
    """ASR, RA and the number of images they are computed from.

    ASR is the share of triggered images that get the attack's class, RA the share that keep their
    true class. For all-to-one attacks, images of the target class are removed first; for
    source-specific ones, only the source classes count.
    """
    victims = test.pick(attack.victims(test.labels))
    guessed = predictions(model, attack.stamp(victims.images))
    hits = guessed == attack.relabel(victims.labels)
    return (
        float(hits.double().mean()),
        float((guessed == victims.labels).double().mean()),
        len(victims),
    )


def _truth(job: Job, data: Dataset, model: nn.Module, attack: Attack | None) -> dict[str, Any]:
    acc = accuracy(model, data.test)
    truth: dict[str, Any] = {
        "name": job.name,
        "part": job.part,
        "data": data.name,
        "architecture": job.architecture.key,
        "seed": job.seed,
        "backdoored": attack is not None,
        "attack": job.attack,
        "family": None,
        "target": None,
        "rate": None,
        "acc": acc,
        "asr": None,
        "ra": None,
        "asr_n": None,
        "recipe": None,
        "hardness": job.hardness,
        "training": vars(job.training),
        "works": acc >= job.data.acc,
    }
    if attack is not None:
        asr, ra, count = measure(model, attack, data.test)
        truth |= {
            "family": attack.family,
            "target": "all-to-all" if attack.target is None else attack.target,
            "rate": job.rate,
            "asr": asr,
            "ra": ra,
            "asr_n": count,
            "recipe": attack.recipe(),
            "works": truth["works"] and asr >= job.least_asr,
        }
        truth |= attack.more_truth(partial(predictions, model), data.test)
    if job.hardness == "shortcut":
        label = shortcut_class(data.classes, seed_of(job))
        others = data.test.pick(data.test.labels != label)
        natural = predictions(model, badged(others.images)) == label
        truth |= {"natural_target": label, "natural_asr": float(natural.double().mean())}
    return truth


def _write(
    out: Path,
    job: Job,
    manifest: Manifest,
    model: nn.Module,
    attack: Attack | None,
    truth: dict[str, Any],
) -> None:
    part, place = out / f"{job.name}.part", out / job.name
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    safetensors.torch.save_file(architectures.export(model), part / "model.safetensors")
    (part / "config.json").write_text(json.dumps(manifest.to_dict(), indent=2) + "\n")
    if attack is not None and attack.learned:
        safetensors.torch.save_file(
            {name: tensor.contiguous() for name, tensor in attack.learned.items()}, part / TRIGGER
        )
    (part / "truth.json").write_text(json.dumps(truth, indent=2, allow_nan=False) + "\n")
    part.rename(place)
