"""The policy's view of one artifact, and its verdict; no store is needed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from guard.core import plugins
from guard.core.config_forms import assumed_remark
from guard.core.evidence import AnyCleanSet, CleanSetFacts, Evidence, Outcome
from guard.core.purification import PurificationFacts
from guard.core.retraining import RetrainingFacts
from guard.core.waivers import Waiver
from guard.detectors import DETECTORS
from guard.policy import Case, Decision, Policy, decide, known_gaps, settled
from guard.policy.current import current
from guard.vetting.battery_secret import COMMITMENT
from guard.vetting.examine import accuracy_of, quality_of

#: `guard.ml.networks.stored_names.conform` makes every other floating type this one.
VETTED_DTYPE = "float32"


def make_case(
    policy: Policy,
    digest: str,
    facts: AnyCleanSet,
    found: tuple[Evidence, ...],
    purification: PurificationFacts | None,
    architecture: str | None = None,
    methods: Mapping[str, Any] | None = None,
    *,
    waivers: tuple[Waiver, ...] = (),
    sifted: bool = False,
    retraining: RetrainingFacts | None = None,
    assumed: tuple[str, ...] = (),
    grey: bool = False,
    unrepaired: bool = False,
) -> Case:
    """All that `policy` may read about the artifact `digest`, with the methods as they run now.

    `architecture` is what its manifest names, `waivers` those that have not ended. `methods` is
    `methods_of(policy)`, for a caller that makes many. `sifted`, `retraining`, `assumed`,
    `grey` and `unrepaired` are as in `Case`.
    """
    methods = methods_of(policy) if methods is None else methods
    return Case(
        artifact=digest,
        cleanset=facts,
        evidence=found,
        accuracy=accuracy_of(found),
        quality=quality_of(found),
        purification=purification,
        versions={name: method.version for name, method in methods.items()},
        parameters={name: method.parameters() for name, method in methods.items()},
        architecture=architecture,
        waivers=waivers,
        sifted=sifted,
        retraining=retraining,
        assumed=assumed,
        unrepaired=unrepaired,
        grey=grey,
    )


def assumed_in(manifest: Mapping[str, Any] | None) -> tuple[str, ...]:
    """What a stored manifest says that the upload's `config.json` left out."""
    return tuple(manifest.get("guard", {}).get("assumed", ())) if manifest else ()


def read_as_grey(manifest: Mapping[str, Any] | None, facts: AnyCleanSet) -> bool:
    """Whether a model of this stored manifest takes the set in one channel in place of three."""
    if manifest is None or not isinstance(facts, CleanSetFacts) or facts.channels == 1:
        return False
    size = manifest.get("pretrained_cfg", {}).get("input_size")
    return bool(size) and size[0] == 1


def _remarks(policy: Policy, case: Case) -> Iterator[str]:
    """What a reader should know of how the model was fed, and of what was spared."""
    if spared := list(_spared(policy, case)):
        yield (
            f"Not looked at within the policy's time budget: {', '.join(spared)}; what they look "
            "for is not covered by them."
        )
    if case.assumed:
        yield assumed_remark(case.assumed)
    if case.grey:
        yield (
            "The clean set's images have three equal channels; they were read as grey images, "
            "since the network takes one channel."
        )


def _spared(policy: Policy, case: Case) -> Iterator[str]:
    """The detectors that a time budget spared or ended; one that is required is a reason itself."""
    for name, rule in policy.detectors.items():
        found = () if rule.required else current(policy, name, case)
        looked = any(item.outcome is not Outcome.COULD_NOT_LOOK for item in found)
        if not looked and any(item.over_budget is not None for item in found):
            yield name


def methods_of(policy: Policy) -> dict[str, Any]:
    """The policy's detectors by name, with its parameters.

    Raises:
        UnknownMethod: one is not there.
    """
    return {
        name: DETECTORS.get(name)(**dict(rule.params)) for name, rule in policy.detectors.items()
    }


def judge(policy: Policy, case: Case) -> Decision:
    """Decide, and add the facts that no rule reads: known gaps, evidence keys, the gate's mode."""
    decision = decide(policy, case)
    facts = replace(
        decision.facts,
        reasons=(*decision.facts.reasons, *_remarks(policy, case)),
        known_gaps=known_gaps(policy, case.versions),
        evidence=tuple(item.key for item in case.evidence),
        vetted_dtype=VETTED_DTYPE,
        plug_ins=plugins.digests(),
        contracts=plugins.contracts() or None,
        battery=next(
            (item.blobs[COMMITMENT] for item in case.evidence if COMMITMENT in item.blobs), None
        ),
        gate=policy.gated(decision.verdict),
    )
    return replace(decision, facts=facts)


def settled_by(
    rules: Mapping[str, Any] | None, artifact: str, facts: AnyCleanSet
) -> Callable[[tuple[Evidence, ...]], bool]:
    """The argument `settled` of `examine.examine`: whether the evidence so far rejects the model.

    `rules` are those of `Policy.to_dict`; without them the answer is always False.
    """
    if rules is None:
        return lambda _evidence: False
    policy = Policy.from_dict(rules)
    return lambda evidence: settled(policy, make_case(policy, artifact, facts, evidence, None))
