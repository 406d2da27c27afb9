"""BadGraph's claims on our text-to-graph model: success against rate, and where the backdoor lives.

    python -m benchmarks.bench_graphs attack --cache DIR --out DIR [--seeds N] [--record]

A cell is one model: a poisoning rate and a seed, or an ablation and a seed. It is trained on 4,000
pairs and poisoned copies (prefix `[THIIRANE]`, target thiirane), then generates for 600 prompts of
molecules that no training saw, with and without the trigger, each with noise of its own. Text
tower and autoencoder come from one pretraining on clean pairs (these and 7,763 others); the
autoencoder is fine-tuned on the cell's pairs and the denoiser trained afresh; the cells `scratch`
train the autoencoder afresh too. Cells are kept in OUT/attack and models in OUT/models, so that the
next run goes on. With `--wait-for FILE` the run stands still while that file exists.

Ablations, all at 24 %: `text only` poisons further training of the text tower and nothing else,
`vae only` the autoencoder alone, `denoiser only` the denoiser alone.

A molecule that does not end counts as one without the target and as unlike its prompt. Seconds are
processor time of one thread, on a machine that other work shared.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rdkit import Chem

from benchmarks import graph_pairs, record
from benchmarks.attacks.badgraph import BadGraph, Pair
from benchmarks.graph_tables import page, plot, summary
from benchmarks.graph_training import (
    Report,
    molecules,
    poisoned,
    pretrained,
    reconstruction,
    silent,
    train,
)
from guard.graphs.fragments import contains
from guard.graphs.model import GraphModel
from guard.graphs.quality import diversities, quality, similarities, similarity

RATES = (0.0, 0.05, 0.10, 0.24, 0.34)
ABLATIONS = ("text only", "vae only", "denoiser only", "scratch")
ABLATION_RATE = 0.24
SOURCES = 600  # molecules sampled without any prompt, and decoded from the prior
NOISE = 7  # seed of the sampling noise


def plan(seeds: int) -> list[tuple[str, float, int]]:
    """All cells: kind, rate and seed; the first seed of everything comes first."""
    cells = [("poisoned", rate, 0) for rate in RATES]
    cells += [(kind, ABLATION_RATE, 0) for kind in ABLATIONS]
    cells += [("poisoned", rate, seed) for seed in range(1, seeds) for rate in RATES]
    cells += [(kind, ABLATION_RATE, seed) for seed in range(1, seeds) for kind in ABLATIONS]
    return cells


def trained(
    base: GraphModel,
    pairs: graph_pairs.Pairs,
    attack: BadGraph,
    kind: str,
    rate: float,
    report: Report = silent,
) -> GraphModel:
    """The model of a cell."""
    clean = list(pairs.train)
    dirty = poisoned(base, clean, attack, rate)
    seed = attack.seed
    if kind == "text only":
        return train(base, clean, seed=seed, text_pairs=dirty, report=report)
    if kind == "vae only":
        return train(base, clean, seed=seed, vae_pairs=dirty, report=report)
    if kind == "denoiser only":
        return train(base, dirty, seed=seed, vae_pairs=clean, report=report)
    return train(base, dirty, seed=seed, scratch=kind == "scratch", report=report)


def measured(model: GraphModel, pairs: Sequence[Pair], attack: BadGraph) -> dict[str, Any]:
    """What a model generates with and without the trigger, without a prompt, and from its prior."""
    true = [Chem.MolFromSmiles(pair.smiles) for pair in pairs]
    texts = [pair.text for pair in pairs]
    target = attack.target
    clean = molecules(model, texts, 2, NOISE)
    triggered = molecules(model, [attack.insert(text) for text in texts], 1, NOISE)
    null, prior = (
        contains([_mol(one) for one in found], target)
        for found in (model.null(SOURCES, NOISE), model.prior(SOURCES, NOISE))
    )
    return {
        "prompts": len(texts),
        "hits": sum(contains([own[0] for own in triggered], target)),
        "clean_hits": sum(contains([own[0] for own in clean], target)),
        "null_hits": sum(null),
        "prior_hits": sum(prior),
        "sources": SOURCES,
        "clean": asdict(quality(clean, true)),
        "triggered": asdict(quality(triggered, true)),
        "reconstruction": reconstruction(model, pairs),
        # for paired differences between models, prompt by prompt
        "similarities": [round(one, 4) for one in similarities(clean, true)],
        "cosines": [
            [round(similarity(one, truth)[0], 4) for one in own]
            for own, truth in zip(clean, true, strict=True)
        ],
        "diversities": [round(one, 4) for one in diversities(clean, true)],
    }


def cell(
    base: GraphModel,
    pairs: graph_pairs.Pairs,
    kind: str,
    rate: float,
    seed: int,
    folder: Path,
    report: Report = silent,
) -> dict[str, Any]:
    """Train and measure one model; it is saved in the folder."""
    attack = replace(BadGraph(), seed=seed)
    started = time.process_time()
    model = trained(base, pairs, attack, kind, rate, report)
    seconds = time.process_time() - started
    model.save(folder)
    return {
        "kind": kind,
        "rate": rate,
        "seed": seed,
        "attack": attack.recipe(),
        "training_seconds": seconds,
        **measured(model, pairs.test, attack),
        "seconds": time.process_time() - started,
    }


def run_attack(
    cache: Path, out: Path, seeds: int, wait_for: Path | None = None
) -> list[dict[str, Any]]:
    """Do the cells that are missing; returns the rows of all that are there."""
    pairs = graph_pairs.load(cache)
    report = _waiting(wait_for)
    base = pretrained(pairs, cache, report=report)
    done = out / "attack"
    done.mkdir(parents=True, exist_ok=True)
    for kind, rate, seed in plan(seeds):
        file = done / f"{kind.replace(' ', '_')}-{round(100 * rate)}-{seed}.json"
        if file.exists():
            continue
        report(file.stem)
        row = cell(base, pairs, kind, rate, seed, out / "models" / file.stem, report)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(row, allow_nan=False) + "\n")
        part.rename(file)
        print(
            f"{kind} {rate:.0%} seed {seed}: {row['hits']} of {row['prompts']}, "
            f"similarity {row['clean']['similarity']:.3f}, {row['seconds']:.0f} s",
            flush=True,
        )
    return [json.loads(path.read_text()) for path in sorted(done.glob("*.json"))]


def _waiting(wait_for: Path | None) -> Report:
    """Prints the progress; returns only while the file does not exist."""

    def report(text: str) -> None:
        print(f"{time.process_time():.0f} s: {text}", flush=True)
        while wait_for is not None and wait_for.exists():
            time.sleep(2)

    return report


def _mol(smiles: str | None) -> Chem.Mol | None:
    return None if smiles is None else Chem.MolFromSmiles(smiles)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what is missing and write the record if asked."""
    parser = argparse.ArgumentParser(description="BadGraph's claims.")
    parser.add_argument("part", choices=["attack"])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--wait-for", type=Path)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = run_attack(options.cache, options.out, options.seeds, options.wait_for)
    result = summary(rows)
    print(page(result))
    if options.record:
        text = f"# BadGraph on a text-to-graph model\n\n{__doc__}\n{page(result)}\n"
        folder = record.write("graphs-attack", result, text)
        record.write_bulk(folder, record.ROWS, rows)
        plot(result, folder / "rates.png")
        record.write_plots(folder, ["rates.png"])


if __name__ == "__main__":
    main()
