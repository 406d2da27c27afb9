"""Which stored evidence counts: that of the methods as they would run now, on this clean set."""

from typing import Any

from guard.core.evidence import Evidence
from guard.policy.case import Case
from guard.policy.rules import Policy


def current(policy: Policy, name: str, case: Case) -> list[Evidence]:
    """All evidence of the method `name` about this artifact that counts at present.

    It comes from this clean set, the method's present version and its present parameters. Every run
    counts: another run with another seed must not make a finding disappear.
    """
    rule, full = policy.detectors[name].params, case.parameters.get(name)
    wanted = rule if full is None else full
    return [
        item
        for item in case.evidence
        if item.method == name
        and item.artifact == case.artifact
        and item.cleanset == case.cleanset.digest
        and item.version == case.versions.get(name)
        and (full is None or set(item.parameters) == set(full))
        and all(
            key in item.parameters and _same(item.parameters[key], value)
            for key, value in wanted.items()
        )
    ]


def _same(one: Any, other: Any) -> bool:
    # Stored parameters were JSON once: a tuple comes back as a list.
    plain = [list(value) if isinstance(value, tuple) else value for value in (one, other)]
    return bool(plain[0] == plain[1])
