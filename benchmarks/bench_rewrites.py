"""Whether a rewriting that keeps a model's answers changes a verdict, and what looking costs.

    python -m benchmarks.zoo build rewrites --out DIR --jobs 1
    python -m benchmarks.bench_rewrites --zoo DIR [--minutes M] [--record]

Every backdoored model of the zoo is rewritten in the four ways that once blinded the searches: all
logits times 1e20; that and a last norm times 1000, undone by the next convolution; a polarizer with
scale 0 and the same answers; that and the norm. Every honest model is rewritten in two of them,
drawn by a fixed seed. A cell is one model in one form: every detector of policy `ensemble` looks at
it, in that policy's order and with its early stop, and policies `default`, `strict` and `ensemble`,
as they are when the tables are made, decide on that evidence. Policy `strict` serves repaired
copies alone: what would be cleared is held while copies are tried. Cells are done in a random order
and kept in DIR/rewrites, so that a part of them is a sample, and the next run goes on.

An upload with a polarizer that is none of the guard's repairs is refused before any detector looks.
Here detectors look nevertheless, and what the policies would say is reported beside the refusal.

Cost: processor seconds of the detectors, and those spent inside them for the canonical form and for
the probe whether a search can move. `cost_ratio` is all of it over what remains without the two,
summed over cells that are not refused, with a 95 % interval of bootstrap draws over cells. What
detectors compute from the clean set alone is done before, as in a service that keeps it.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import safetensors.torch
import torch

from benchmarks import record, zoo
from benchmarks.rewrite_forms import (
    PAIRS,
    PLAIN,
    REWRITES,
    rewritten,
)
from benchmarks.rewrite_tables import page, summary
from guard.core.contracts import Budget
from guard.core.evidence import AnyCleanSet, Evidence
from guard.core.manifest import MANIFEST_FILE
from guard.detectors import DETECTORS, _base
from guard.ml.cleanset import CuratedSet
from guard.ml.networks import architectures
from guard.ml.networks.architectures import ImageModel
from guard.ml.search import mobility
from guard.policy import Policy, load_policy
from guard.vetting import examine, population
from guard.vetting.case import judge, make_case, settled_by

POLICIES = ("default", "strict", "ensemble")
WIDEST = POLICIES[-1]  # it has every detector, with the parameters that the others have
#: What every detector does before it looks, and where its base class finds it.
STEPS = {"canonical_form": _base, "require_mobility": mobility}
WHOLE = "__call__"  # a detector's whole run
SEED = 0


def plan(models: Sequence[zoo.ZooModel]) -> list[tuple[zoo.ZooModel, str]]:
    """All cells, in an order that the zoo's names and `SEED` decide."""
    cells = []
    draw = random.Random(SEED)
    honest = [model for model in models if not model.truth["backdoored"]]
    for model in models:
        if model.truth["backdoored"]:
            cells += [(model, how) for how in (PLAIN, *REWRITES)]
    for pair in PAIRS:
        ways = [pair[place % len(pair)] for place in range(len(honest))]
        draw.shuffle(ways)
        cells += list(zip(honest, ways, strict=True))
    cells += [(model, PLAIN) for model in honest]
    draw.shuffle(cells)
    return cells


@contextmanager
def clocks(spent: dict[str, float]) -> Iterator[None]:
    """Adds the processor seconds of `STEPS` and of whole detectors to `spent` inside the block."""

    def timed(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            try:
                return step(*args, **kwargs)
            finally:
                spent[name] = spent.get(name, 0.0) + time.process_time() - started

        return run

    places = [*((place, name) for name, place in STEPS.items()), (_base.Detector, WHOLE)]
    with ExitStack() as stack:
        for place, name in places:
            stack.enter_context(patch.object(place, name, timed(name, getattr(place, name))))
        yield


def cell(
    model: zoo.ZooModel, how: str, curated: CuratedSet, policies: Mapping[str, Policy]
) -> dict[str, Any]:
    """One model in one form: what each policy says, and processor seconds by detector."""
    manifest = (model.folder / MANIFEST_FILE).read_bytes()
    with TemporaryDirectory() as place:
        plain = _opened(model.folder / population.MODEL, manifest, Path(place))[1]
        images = curated.visible().search.floats()
        upload, config = Path(place) / "upload.safetensors", manifest
        if how != PLAIN:
            other = rewritten(plain, how, images)
            safetensors.torch.save_file(architectures.export(other), upload)
            config = json.dumps(other.manifest.to_dict()).encode()
        else:
            upload = model.folder / population.MODEL
        inspected, network = _opened(upload, config, Path(place))
    rules, seconds, steps = policies[WIDEST], {}, {}
    settled = settled_by(rules.to_dict(), inspected.digest, curated.facts)
    needed = {method for name in POLICIES for method in policies[name].detectors if name != WIDEST}
    evidence: tuple[Evidence, ...] = ()
    for name, rule in rules.detectors.items():
        if name not in needed and settled(evidence):
            continue  # as the policy that has it skips it
        spent: dict[str, float] = {}
        with clocks(spent):
            found = examine.examine(
                network, inspected.digest, curated, {name: dict(rule.params)}, seed=SEED
            )
        seconds[name], steps[name] = spent.pop(WHOLE), spent
        have = {item.method for item in evidence}
        evidence += tuple(item for item in found.evidence if item.method not in have)
    return {
        "model": model.name,
        "backdoored": model.truth["backdoored"],
        "asr": model.truth["asr"],
        "parameters": sum(tensor.numel() for tensor in network.parameters()),
        "how": how,
        "refused": inspected.manifest.polarizer is not None,
        "could_not_look": [item.method for item in evidence if item.reason],
        "seconds": seconds,
        "steps": steps,
        "evidence": [item.to_dict() for item in evidence],
    }


def decided(
    row: Mapping[str, Any], facts: AnyCleanSet, policies: Mapping[str, Policy]
) -> dict[str, Any]:
    """A cell with what each policy, as it is now, decides on its evidence."""
    evidence = [Evidence.from_dict(item) for item in row["evidence"]]
    verdicts = {}
    for name, policy in policies.items():
        own = tuple(
            item
            for item in evidence
            if item.method in policy.detectors or item.method == examine.ACCURACY_METHOD
        )
        decision = judge(policy, make_case(policy, evidence[0].artifact, facts, own, None))
        verdicts[name] = {
            "verdict": str(decision.verdict),
            "repaired": decision.purify,
            "score": decision.facts.score,
            "reasons": list(decision.reasons),
        }
    return {**row, "verdicts": verdicts}


def _opened(path: Path, manifest: bytes, out: Path) -> tuple[examine.Inspected, ImageModel]:
    inspected = examine.inspect_upload(path, path.name, manifest, out, budget=Budget())
    return inspected, examine.open_model(inspected.canonical, device="cpu")


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what is missing, for so long, and write the record if asked."""
    parser = argparse.ArgumentParser(description="What rewritten models do to verdicts.")
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * options.minutes
    models = zoo.load(options.zoo)
    policies = {name: load_policy(Path(name)) for name in POLICIES}
    cells = plan(models)
    done = options.zoo / "rewrites"
    done.mkdir(exist_ok=True)
    sets: dict[Path, CuratedSet] = {}
    prepared: set[Path] = set()

    def cleanset(model: zoo.ZooModel) -> CuratedSet:
        if model.cleanset not in sets:
            sets[model.cleanset] = population.read_cleanset(model.cleanset)
        return sets[model.cleanset]

    for model, how in cells:
        file = done / f"{model.name}--{how.replace(' ', '')}.json"
        if file.exists() or time.monotonic() > end:
            continue
        if model.cleanset not in prepared:
            prepared.add(model.cleanset)
            for name in policies[WIDEST].detectors:
                DETECTORS.get(name)().prepare(cleanset(model).visible(), torch.device("cpu"))
        row = cell(model, how, cleanset(model), policies)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(row, allow_nan=False) + "\n")
        part.rename(file)
        print(f"{model.name}, {how}: {sum(row['seconds'].values()):.0f} s", flush=True)
    rows = []
    by_name = {model.name: model for model in models}
    for path in sorted(done.glob("*.json")):
        row = json.loads(path.read_text())
        rows.append(decided(row, cleanset(by_name[row["model"]]).facts, policies))
    result = summary(rows, policies, len(cells))
    print(page(result))
    if options.record:
        folder = record.write(
            "rewrites", result, f"# Rewritten models\n\n{__doc__}\n{page(result)}\n"
        )
        record.write_bulk(folder, record.ROWS, rows)


if __name__ == "__main__":
    main()
