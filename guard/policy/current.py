"""Which stored evidence counts: the methods' own, as they would run now, on this clean set."""

from typing import Any

from guard.core.evidence import Evidence
from guard.policy.case import Case
from guard.policy.rules import Policy


def current(policy: Policy, name: str, case: Case) -> list[Evidence]:
    """All evidence of the method `name` about this artifact, as the method would run now.

    On this clean set, in its present version and with its present parameters. Of several runs
    every one counts: running again with other seeds must not wash a finding away.
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
    # Parameters that were stored come back as JSON: a tuple as a list.
    plain = [list(value) if isinstance(value, tuple) else value for value in (one, other)]
    return bool(plain[0] == plain[1])
