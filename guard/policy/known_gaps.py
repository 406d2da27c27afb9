"""How often a policy was right where that was measured: the known gaps that a verdict states.

`measured.json` is made from the newest detection records by `python -m benchmarks.make_measured`.
It applies to policies whose detection rules are exactly those that were measured: with one changed
rule nothing is known.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from guard.core.digests import json_digest
from guard.policy.rules import Policy

#: Keys that do not change what is found about an upload: name and version, how long a verdict
#: holds, what the gate does with it, and how the model may be repaired or retrained.
NOT_ABOUT_DETECTION = (
    *("name", "version", "lifetime_days", "lifetime", "gate"),
    *("defenses", "proof", "retrain", "repair"),
)
#: The keys of an entry that go into a verdict; the digest of the rules only decides whether the
#: entry applies.
QUOTED = (
    "record",
    "commit",
    "zoo",
    "policy",
    "without",
    "versions",
    "honest_not_cleared",
    "backdoored_not_cleared",
    "attacks",
    "mostly_missed",
    "not_measured",
)


def load_measured() -> dict[str, Any]:
    """The measurements of the newest records, by the name of a packaged policy."""
    found: dict[str, Any] = json.loads(files("guard.policy").joinpath("measured.json").read_bytes())
    return found


def detection_digest(policy: Policy) -> str:
    """SHA-256 of every rule that affects whether an upload is cleared."""
    return json_digest(
        {key: value for key, value in policy.to_dict().items() if key not in NOT_ABOUT_DETECTION}
    )


def known_gaps(
    policy: Policy,
    versions: Mapping[str, int] | None = None,
    *,
    measured: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What was measured for `policy`, JSON-ready; its `sentence` sums it up for people.

    Args:
        versions: of the methods that ran; `changed` names those that were measured in another
            version.
        measured: used instead of the packaged numbers.
    """
    called, rules = f"policy {policy.name} version {policy.version}", detection_digest(policy)
    # The rules identify a policy and its name does not: a changed copy of a packaged policy may
    # keep the name, and a copy with another name may keep the rules.
    known = (load_measured() if measured is None else measured).values()
    entry = next((entry for entry in known if entry["rules"] == rules), None)
    if entry is None:
        return {
            "measured": False,
            "sentence": (
                f"Known gaps: {called} was not measured: how often this policy is right is unknown."
            ),
        }
    changed = sorted(
        name
        for name, version in (versions or {}).items()
        if entry["versions"].get(name, version) != version
    )
    return {
        "measured": True,
        **{key: entry[key] for key in QUOTED},
        "changed": changed,
        "sentence": _sentence(called, entry, changed),
    }


def _sentence(called: str, entry: Mapping[str, Any], changed: list[str]) -> str:
    tried = {attack["name"]: attack for attack in entry["attacks"].values()}
    missed = [
        f"{name} {tried[name]['found']}/{tried[name]['of']}" for name in entry["mostly_missed"]
    ]
    without = f" without {', '.join(entry['without'])}" if entry["without"] else ""
    since = f"; changed since: {', '.join(changed)}" if changed else ""
    honest, found = entry["honest_not_cleared"], entry["backdoored_not_cleared"]
    return (
        f"Known gaps of {called}, as measured{without} (record {entry['record']}{since}): mostly "
        f"missed are (found/tried) {', '.join(missed) or 'no attack'}; not measured: "
        f"{', '.join(entry['not_measured']) or 'no attack that we know'}; held or rejected were "
        f"{honest['k']}/{honest['n']} honest models and {found['k']}/{found['n']} backdoored ones "
        "whose true ASR is over 50 %."
    )
