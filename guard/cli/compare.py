"""Compare two model files (quality, recovered triggers, weights); needs no service."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json, quiet_stdout
from guard.cli._progress import watched
from guard.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.core.evidence import AsrEstimate
    from guard.core.modality import Modality
    from guard.flow import compare as comparing
    from guard.flow.compare import Comparison, Replayed, Side

app = typer.Typer(rich_markup_mode=None)
MOST_CLASSES, MOST_RINGS = 24, 8  # in the tables; the JSON document has all


@app.command()
def compare(
    a: Annotated[
        Path,
        typer.Argument(help="A model file, or a folder with model.safetensors and config.json."),
    ],
    b: Annotated[
        Path, typer.Argument(help="The model to compare A with, such as A after purification.")
    ],
    cleanset: Annotated[
        str | None,
        typer.Option(
            help="A stored name, an image folder, a .parquet (of images or pairs) or an .npz."
        ),
    ] = None,
    scan: Annotated[
        bool,
        typer.Option("--scan", help="Scan A as well, and replay its suspicious triggers on both."),
    ] = False,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="The policy whose detectors --scan runs: a TOML file, default, copies, strict, "
            "ensemble or text-to-graph."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same answer, on one machine.")] = 0,
    device: Annotated[
        str | None, typer.Option(help="A torch device; CUDA where there is one by default.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=1, help="Time budget of all detectors of --scan.")
    ] = math.inf,
    layers: Annotated[int, typer.Option(min=0, help="How many layers the table shows.")] = 10,
    form: FormatOption = Format.TABLE,
) -> int:
    """Show how two models differ; it judges neither, and exits 0 whatever the difference.

    Without --cleanset, only architecture and weights are compared. With --scan, triggers of A are
    recovered, which takes as long as a scan of A. Both models must be of one modality.
    """
    if scan and cleanset is None:
        raise InputError("--scan needs --cleanset X.", code="no_cleanset")
    if policy is not None and not scan:
        raise InputError("--policy goes with --scan.", code="no_scan")
    from guard import offline_inputs
    from guard.flow import compare as comparing
    from guard.flow.budget import budget_of
    from guard.settings import load_settings

    with watched("compare") as progress, quiet_stdout():
        found = comparing.compare(
            a,
            b,
            None if cleanset is None else offline_inputs.curated_set(cleanset),
            names=(offline_inputs.name_of(a), offline_inputs.name_of(b)),
            seed=seed,
            seconds=seconds,
            device=device,
            progress=progress,
            budget=budget_of(load_settings()),
            detectors=_detectors(policy) if scan else None,
        )
    if form is Format.JSON:
        print_json(found.to_dict())
    else:
        _show(found, layers)
    return 0


def _detectors(policy: Path | None) -> "Callable[[Modality], comparing.Detectors]":
    """The detectors of the policy, or of the packaged one for a modality, with their parameters."""
    from guard import offline_inputs

    rules = offline_inputs.policy_of(policy)

    def of(modality: "Modality") -> "comparing.Detectors":
        own = offline_inputs.policy_for(rules, modality, given=policy is not None)
        return {name: rule.params for name, rule in own.detectors.items()}

    return of


def _show(found: "Comparison", layers: int) -> None:
    from guard.cli._render import console, print_table
    from guard.core.text import printable

    sides = (found.a, found.b)
    rows: list[tuple[object, ...]] = [
        ("SHA-256", *(side.digest for side in sides)),
        ("architecture", *(side.architecture for side in sides)),
        *_sizes(*sides),
        ("parameters", *(f"{side.parameters:,}" for side in sides)),
    ]
    print_table(("", f"A: {found.a.name}", f"B: {found.b.name}"), rows)
    console().print(printable(_summary(found)))
    if found.a.accuracy is not None and found.b.accuracy is not None:
        print_table(("clean accuracy", ">A", ">B", ">B - A"), _recalls(found))
    if found.a.quality is not None and found.b.quality is not None:
        print_table(("hold-out prompts", ">A", ">B", ">B - A"), _qualities(found))
    if found.scan is not None:
        print_table(
            ("trigger recovered on A", ">ASR of A", ">ASR of B"),
            [(_trigger(found, one), _rate(one.a), _rate(one.b)) for one in found.replayed],
            empty="The scan of A found no suspicious trigger to replay.",
        )
        for problem in found.could_not_look():
            console().print(printable(f"could not look: {problem}"))
    if layers:
        left = len(found.layers) - layers
        print_table(
            ("layer", "kind", ">numbers", ">moved by (L2)", ">relative"),
            [
                (
                    one.layer,
                    one.kind,
                    f"{one.numbers:,}",
                    f"{one.distance:.4g}",
                    _percent(one.relative),
                )
                for one in found.layers[:layers]
            ],
            title="changed weights, largest change first"
            + (f" ({left} more in --format json)" if left > 0 else ""),
        )


def _summary(found: "Comparison") -> str:
    if found.identical:
        sentence = "The same model: weights and manifest are identical."
    elif found.same_architecture:
        sentence = "The same architecture."
    else:
        sentence = (
            f"Not the same architecture: {len(found.unmatched)} tensors have no match of the same "
            "name and shape; only the others are compared below."
        )
    if found.agreement is not None:
        what = "images" if found.a.motifs is None else "prompts (the same molecule)"
        sentence += f" They agree on {found.agreement:.1%} of {found.images} hold-out {what}."
    return sentence


def _sizes(a: "Side", b: "Side") -> list[tuple[object, ...]]:
    """The row of the number of classes, or of motifs where the models have no classes."""
    if a.motifs is not None:
        return [("motifs", a.motifs, b.motifs)]
    return [("classes", a.classes, b.classes)]


def _trigger(found: "Comparison", one: "Replayed") -> str:
    if found.a.motifs is not None:
        return f"plants {one.target}, {one.family}"
    return f"to class {one.target}, {one.family}"


def _qualities(found: "Comparison") -> list[tuple[object, ...]]:
    """Rows of the quality of what is generated, then of the ring systems that differ most."""
    before, after = found.a.quality, found.b.quality
    if before is None or after is None:
        return []
    rows = [
        ("similarity", before.similarity, after.similarity),
        ("similarity of at least 0.5", before.qualified, after.qualified),
        ("novelty", before.novelty, after.novelty),
        ("diversity", before.diversity, after.diversity),
        ("uniqueness", before.uniqueness, after.uniqueness),
    ]
    rings = [
        (f"with {ring}", before.ring_systems.get(ring, 0.0), after.ring_systems.get(ring, 0.0))
        for ring in sorted(before.ring_systems.keys() | after.ring_systems.keys())
    ]
    rows += sorted(rings, key=lambda row: -abs(row[2] - row[1]))[:MOST_RINGS]
    return [(name, f"{a:.1%}", f"{b:.1%}", f"{100 * (b - a):+.1f}") for name, a, b in rows]


def _recalls(found: "Comparison") -> list[tuple[object, ...]]:
    """Rows of accuracy: overall, then each class in order; of many, those that differ most."""
    before, after = found.a.accuracy, found.b.accuracy
    if before is None or after is None:
        return []
    pairs = list(enumerate(zip(before.per_class, after.per_class, strict=True)))
    shown = sorted(sorted(pairs, key=lambda pair: -abs(pair[1][1] - pair[1][0]))[:MOST_CLASSES])
    names = dict(enumerate(found.a.label_names))
    rows = [
        ("all", before.overall, after.overall),
        *((f"{index} {names.get(index, '')}".strip(), old, new) for index, (old, new) in shown),
    ]
    made: list[tuple[object, ...]] = [
        (name, f"{old:.1%}", f"{new:.1%}", f"{100 * (new - old):+.1f}") for name, old, new in rows
    ]
    left = len(pairs) - len(shown)
    return [*made, (f"{left} classes that differ less", "", "", "")] if left else made


def _rate(estimate: "AsrEstimate") -> str:
    return f"{estimate.estimate:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"


def _percent(relative: float) -> str:
    return f"{relative:.2%}" if math.isfinite(relative) else "from zero"
