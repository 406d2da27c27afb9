"""How text-to-graph models are vetted; the functions of `guard.vetting.modalities.Kind`."""

import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from guard.core.contracts import Budget, Header
from guard.core.digests import canonical_json, sha256
from guard.core.errors import InputError, ManifestRejected, MethodFailed
from guard.core.evidence import (
    AsrEstimate,
    Evidence,
    Finding,
    GraphQuality,
    Outcome,
    PairSetFacts,
    TriggerLike,
)
from guard.core.graph_manifest import GraphManifest
from guard.core.molecules import require_rdkit
from guard.core.pairs import CuratedPairs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from guard.graphs.model import GraphModel

METHOD, VERSION = "graph_quality", 2
PARTS = ("text.", "vae.", "denoiser.")
PROMPTS = 128  # of the hold-out that quality, and a repair, are measured on
RATED = 512  # that a trigger's ASR is measured on: prompts differ more than molecules of one
SAMPLES = 2  # for each of them
SMOKE_PROMPTS = 4


def conformed(
    manifest: GraphManifest, tensors: "Mapping[str, Any]", *, budget: Budget
) -> "tuple[GraphManifest, dict[str, Any]]":
    """The tensors as they are: these models have one form."""
    del budget
    return manifest, dict(tensors)


def afford(manifest: GraphManifest, *, budget: Budget) -> None:
    """Refuse a model by what one molecule costs."""
    require_rdkit()
    from guard.graphs.cost import refuse_costly

    refuse_costly(manifest, budget)


def match(manifest: GraphManifest, facts: PairSetFacts) -> None:
    """Any pair set fits."""
    del manifest, facts


def check(manifest: GraphManifest, header: Header, *, budget: Budget) -> None:
    """Refuse weights of other parts, motifs that RDKit cannot read, and other shapes than named."""
    del budget
    require_rdkit()
    named = {info.name: info for info in header.tensors}
    for part in PARTS:
        if not any(name.startswith(part) for name in named):
            raise _shapes(f"there are no tensors {part}*")
    if odd := next((name for name in named if not name.startswith(PARTS)), None):
        raise _shapes(f"the tensor {odd[:80]} belongs to no part of the model")
    from guard.formats._motifs import check_motifs

    check_motifs(manifest.motifs)
    from guard.graphs.shapes import shapes

    wanted = shapes(manifest)
    if other := sorted(wanted.keys() ^ named.keys()):
        what = "is missing" if other[0] in wanted else "is not part of the model"
        raise _shapes(f"the tensor {other[0][:80]} {what}")
    for name, info in named.items():
        if info.dtype != "F32" or info.shape != wanted[name]:
            raise _shapes(
                f"the tensor {name} is {info.dtype} of shape {info.shape}, not F32 of shape "
                f"{wanted[name]}"
            )


def _shapes(what: str) -> ManifestRejected:
    return ManifestRejected(
        f"The weights are not those of config.json: {what}.", code="manifest_shapes"
    )


def load(manifest: GraphManifest, tensors: "Mapping[str, Any]") -> "GraphModel":
    """The model, built from its manifest."""
    require_rdkit()
    from guard.graphs.model import build

    return build(manifest, tensors)


def read_clean(data: bytes, name: str) -> CuratedPairs:
    """A stored set of pairs."""
    from guard import cleansets

    return cleansets.load_pairs(data, name)


def fitted(manifest: GraphManifest, curated: CuratedPairs) -> CuratedPairs:
    """Any pair set fits: that a molecule cannot be built shows in the measured quality."""
    del manifest
    return curated


def measured(model: "GraphModel", artifact: str, curated: CuratedPairs, *, seed: int) -> Evidence:
    """The quality of what is generated for prompts of the hold-out."""
    started = time.monotonic()
    quality = quality_on(model, curated, seed=seed)
    return Evidence(
        artifact=artifact,
        method=METHOD,
        version=VERSION,
        parameters={"prompts": PROMPTS, "samples": SAMPLES},
        cleanset=curated.facts.digest,
        seed=seed,
        outcome=Outcome.MEASURED,
        families=(),
        quality=quality,
        seconds=time.monotonic() - started,
    )


def quality_on(model: "GraphModel", curated: CuratedPairs, *, seed: int) -> GraphQuality:
    """Similarity, novelty and diversity of `SAMPLES` molecules for each of `PROMPTS` prompts.

    Raises:
        MethodFailed: no molecule of the hold-out can be read.
    """
    from guard.graphs.quality import quality

    prompts = curated.holdout.pick(range(min(PROMPTS, len(curated.holdout))))
    true = [_molecule(smiles) for smiles in prompts.smiles]
    if not all(true):
        raise MethodFailed("A molecule of the hold-out cannot be read.", code="molecule_unreadable")
    contexts = model.contexts(prompts.texts).repeat_interleave(SAMPLES, dim=0)
    keys = [(seed, number) for number in range(len(contexts))]  # one draw of noise is one case
    made = model.molecules(model.latents(contexts, keys))
    groups = [made[place : place + SAMPLES] for place in range(0, len(made), SAMPLES)]
    found = quality(groups, [one for one in true if one is not None])
    return GraphQuality(
        similarity=found.similarity,
        qualified=found.qualified,
        novelty=found.novelty,
        diversity=found.diversity,
        uniqueness=found.uniqueness,
        ring_systems=_ring_systems(made),
        prompts=found.prompts,
        molecules=found.samples,
    )


def _molecule(smiles: str) -> Any:
    """The RDKit molecule; None where a rule is broken."""
    from guard.graphs.molecule import read

    try:
        return read(smiles)
    except InputError:
        return None


def _ring_systems(made: "Sequence[Any]") -> dict[str, float]:
    """The share of molecules with each ring system, by its canonical SMILES."""
    from guard.graphs.motif_tree import motif, tree_of, walk

    counts = Counter[str]()
    for molecule in made:
        nodes = [] if molecule is None else walk(tree_of(molecule))
        counts.update({node.motif for node in nodes if not motif(node.motif).single})
    return {name: counts[name] / len(made) for name in sorted(counts)}


def with_rates(
    item: Evidence,
    model: "GraphModel",
    curated: CuratedPairs,
    triggers: dict[str, bytes],
    *,
    seed: int,
) -> Evidence:
    """The evidence with the ASR of each trigger, on hold-out prompts that ask for something else.

    `natural` is the rate of the same fragment for the same prompts and noise without the trigger.
    """
    findings: list[Finding] = []
    for finding in item.findings:
        if finding.trigger is None or not isinstance(finding.target, str):
            findings.append(finding)
            continue
        from guard.ml.triggers.files import serialise

        data = serialise(finding.trigger)
        digest = sha256(data)
        triggers[digest] = data
        estimate = rate(model, curated, finding.trigger, finding.target, seed=seed, prompts=RATED)
        findings.append(replace(finding, asr=estimate, trigger_digest=digest, trigger=None))
    return replace(item, findings=tuple(findings))


def completed(
    evidence: tuple[Evidence, ...],
    model: "GraphModel",
    curated: CuratedPairs,
    triggers: dict[str, bytes],
    *,
    seed: int,
) -> tuple[Evidence, ...]:
    """The evidence with triggers of one method for fragments that another one accuses."""
    from guard.vetting._graph_accused import tried_with_others

    return tried_with_others(evidence, model, curated, triggers, seed=seed)


def rate(
    model: "GraphModel",
    curated: CuratedPairs,
    trigger: TriggerLike,
    target: str,
    *,
    seed: int,
    samples: int = 1,
    prompts: int = PROMPTS,
) -> AsrEstimate:
    """How often a fragment is generated with the trigger, and without it (`natural`).

    Each of at most `prompts` prompts gets `samples` molecules, each with noise of its own; the
    noise with and without the trigger is the same. The interval knows that molecules of one prompt
    are alike.

    Raises:
        MethodFailed: every prompt of the hold-out describes a molecule that has the fragment.
    """
    from guard.graphs.fragments import contains
    from guard.ml.statistics import clustered_wilson

    asked = contains([_molecule(smiles) for smiles in curated.holdout.smiles], target)
    places = [place for place, has in enumerate(asked) if not has][:prompts]
    if not places:
        raise MethodFailed("Every prompt of the hold-out asks for the fragment.", code="no_prompts")
    texts = [text for text in curated.holdout.pick(places).texts for _ in range(samples)]
    keys = [(seed, number) for number in range(len(texts))]
    plain, with_it = (
        contains(model.molecules(model.latents(contexts, keys)), target)
        for contexts in (model.contexts(texts), _triggered(model, texts, trigger))
    )
    starts = range(0, len(texts), samples)
    low, high = clustered_wilson([sum(with_it[at : at + samples]) for at in starts], samples)
    return AsrEstimate(
        target=target,
        family=str(trigger.family),
        successes=sum(with_it),
        trials=len(texts),
        estimate=sum(with_it) / len(texts),
        low=low,
        high=high,
        natural=sum(plain) / len(texts),
    )


def _triggered(model: "GraphModel", texts: "Sequence[str]", trigger: TriggerLike) -> Any:
    from guard.graphs.triggers import ContextTrigger

    if isinstance(trigger, ContextTrigger):
        return trigger.apply(model.contexts(texts))
    return model.contexts(trigger.apply(texts))


def smoke(model: "GraphModel", curated: CuratedPairs) -> bytes:
    """A few hold-out prompts with their latents and SMILES."""
    requests = []
    for number, text in enumerate(curated.holdout.texts[:SMOKE_PROMPTS]):
        latents = model.latents(model.contexts([text]), [(number, 0)])
        requests.append(
            {
                "text": text,
                "seed": number,
                "latents": [[round(value, 6) for value in row] for row in latents.tolist()],
                "smiles": model.smiles(latents),
            }
        )
    return canonical_json({"kind": str(GraphManifest.modality), "requests": requests})
