"""The policy's view of one artifact: its evidence beside the methods as they run now.

Needs no store.
"""

from collections.abc import Callable, Mapping
from typing import Any

from guard.core.evidence import CleanSetFacts, Evidence, PurificationFacts
from guard.detectors import DETECTORS
from guard.policy import Case, Policy, settled
from guard.vetting.examine import accuracy_of


def make_case(
    policy: Policy,
    digest: str,
    facts: CleanSetFacts,
    found: tuple[Evidence, ...],
    purification: PurificationFacts | None,
    architecture: str | None = None,
) -> Case:
    """All that `policy` may read about the artifact `digest`.

    `architecture` is what its manifest names.
    """
    methods = {
        name: DETECTORS.get(name)(**dict(rule.params)) for name, rule in policy.detectors.items()
    }
    return Case(
        artifact=digest,
        cleanset=facts,
        evidence=found,
        accuracy=accuracy_of(found),
        purification=purification,
        versions={name: method.version for name, method in methods.items()},
        parameters={name: method.parameters() for name, method in methods.items()},
        architecture=architecture,
    )


def settled_by(
    rules: Mapping[str, Any] | None, artifact: str, facts: CleanSetFacts
) -> Callable[[tuple[Evidence, ...]], bool]:
    """For `vet.examine`: whether evidence so far rejects by these rules (`Policy.to_dict`).

    None never stops early.
    """
    if rules is None:
        return lambda _evidence: False
    policy = Policy.from_dict(rules)
    return lambda evidence: settled(policy, make_case(policy, artifact, facts, evidence, None))
