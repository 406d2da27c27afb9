"""Molecules a second: whole batches over prompts, seeds and texts, against one by one.

    python -m benchmarks.bench_sampling [--model FOLDER] [--candidates N] [--record]

A search asks a model for the same prompts with many candidate texts and several seeds of the noise.
Here these molecules are decoded one by one, as a service answers requests, and then again as one
batch; both must be the same SMILES. One by one it is done for a random part of them (`ALONE`), and
the two ways take turns, `ROUNDS` times, since other work may share the machine; the ratio is that
of the medians of processor seconds, one thread. Without `--model` it is the honest model of the
canary kit; its prompts are those of the kit's clean set.
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import record
from guard.core.modality import Modality
from guard.graphs.model import GraphModel, load
from guard.graphs.triggers import POSITIONS, PromptTrigger
from guard.graphs.wording import texts as listed
from guard.vetting import canary_trial, examine

PROMPTS, SEEDS = 8, 4
CANDIDATES = 64  # texts
ALONE, ROUNDS = 64, 3
WANTED = 20.0  # times, of issue 23


def requests(
    model: GraphModel, prompts: Sequence[str], candidates: int
) -> list[tuple[str, tuple[int, int]]]:
    """Each prompt with each candidate text, for each seed; the text and the key of its noise."""
    words = listed(model.pieces, candidates, 2)[:candidates]
    triggers = [
        PromptTrigger(word, POSITIONS[place % len(POSITIONS)]) for place, word in enumerate(words)
    ]
    return [
        (text, (seed, place))
        for trigger in triggers
        for seed in range(SEEDS)
        for place, text in enumerate(trigger.apply(prompts))
    ]


def batched(model: GraphModel, asked: Sequence[tuple[str, tuple[int, int]]]) -> list[str | None]:
    """The SMILES of all requests, as one batch."""
    texts, keys = zip(*asked, strict=True)
    return model.smiles(model.latents(model.contexts(texts), keys))


def alone(model: GraphModel, asked: Sequence[tuple[str, tuple[int, int]]]) -> list[str | None]:
    """The same, one by one."""
    return [batched(model, [one])[0] for one in asked]


def measured(model: GraphModel, prompts: Sequence[str], candidates: int) -> dict[str, Any]:
    """Seconds of both ways, and whether they agree."""
    asked = requests(model, prompts[:PROMPTS], candidates)
    places = random.Random(0).sample(range(len(asked)), min(ALONE, len(asked)))
    some = [asked[place] for place in places]
    slow, fast, same = [], [], 0
    for _ in range(ROUNDS):
        seconds, single = _timed(lambda: alone(model, some))
        slow.append(seconds / len(some))
        seconds, whole = _timed(lambda: batched(model, asked))
        fast.append(seconds / len(asked))
        same = sum(whole[place] == one for place, one in zip(places, single, strict=True))
    return {
        "molecules": len(asked),
        "alone": len(some),
        "same": same,
        "rounds": ROUNDS,
        "seconds_alone": slow,
        "seconds_batched": fast,
        "per_second_alone": 1 / median(slow),
        "per_second_batched": 1 / median(fast),
        "ratio": median(slow) / median(fast),
    }


def page(result: dict[str, Any]) -> str:
    """The table of the record's page; molecules a second."""
    head = "| model | molecules in a batch | one by one | batched | ratio | the same |"
    lines = [
        f"| {row['model']} | {row['molecules']} | {row['per_second_alone']:.0f} "
        f"| {row['per_second_batched']:.0f} | {row['ratio']:.1f} "
        f"| {row['same']} of {row['alone']} |"
        for row in result["rows"]
    ]
    return "\n".join([head, "|---|--:|--:|--:|--:|--:|", *lines])


def _timed(work: Callable[[], list[str | None]]) -> tuple[float, list[str | None]]:
    started = time.process_time()
    found = work()
    return time.process_time() - started, found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the record if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, action="append", default=[])
    parser.add_argument("--candidates", type=int, default=CANDIDATES)
    parser.add_argument("--note", default="", help="what a reader of the record must know")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    prompts = canary_trial.clean_set(modality=Modality.GRAPHS).holdout.texts
    kit = examine.open_model(
        canary_trial.KIT / canary_trial.FILES[Modality.GRAPHS][1], device="cpu"
    )
    models = {"canary kit": kit} | {folder.name: load(folder) for folder in options.model}
    rows = [
        {"model": name, **measured(model, prompts, options.candidates)}
        for name, model in models.items()
    ]
    result = {"wanted": WANTED, "note": options.note, "rows": rows}
    print(page(result))
    if options.record:
        text = f"# Sampling in batches\n\n{__doc__}\n{options.note}\n\n{page(result)}\n"
        record.write("graphs-sampling", result, text)


if __name__ == "__main__":
    main()
