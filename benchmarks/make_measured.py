"""Write guard/policy/measured.json, what each packaged policy misses, from the newest records.

    python -m benchmarks.make_measured

A test compares the file with the records. A record named detect-NAME is about the packaged policy
NAME. If it was made without some of the policy's detectors, the file states that; if any other rule
differs, the digest of the rules does not fit and the guard reports "not measured".
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.attacks import ATTACKS
from benchmarks.quote import mostly_missed, newest, strong
from benchmarks.record import RECORDS
from guard.policy import Policy, load_policy
from guard.policy.known_gaps import detection_digest
from guard.policy.load import packaged

DOCUMENT = Path(__file__).parents[1] / "guard" / "policy" / "measured.json"
#: Plain names of attacks; an attack that is missing here keeps its file's name.
PLAIN = {
    "adaptive_blend": "blend with cover images (Adaptive-Blend)",
    "all_to_all": "all-to-all",
    "blended": "blended image",
    "bpp": "fewer colours (BppAttack)",
    "colour_filter": "colour filter",
    "detector_aware": "trained against these detectors",
    "input_aware": "another trigger for each image (Input-aware)",
    "label_consistent": "clean-label (label-consistent)",
    "lira": "learnt noise (LIRA)",
    "low_frequency": "low-frequency pattern",
    "narcissus": "clean-label (Narcissus)",
    "patch": "patch (BadNets)",
    "patch_anywhere": "patch at random places",
    "sig": "clean-label (SIG)",
    "ssba": "sample-specific (SSBA)",
    "tact": "source-specific (TaCT)",
    "trojan_patch": "patch for one neuron (TrojanNN)",
    "wanet": "warp (WaNet)",
}


def measured(folder: Path = RECORDS) -> dict[str, Any]:
    """The numbers of each packaged policy's newest record; a policy without one has no entry."""
    found = {name: newest(f"detect-{name}", folder) for name in packaged()}
    return {
        name: _entry(load_policy(Path(name)), record, document)
        for name, (record, document) in found.items()
        if document
    }


def _entry(own: Policy, record: str, document: dict[str, Any]) -> dict[str, Any]:
    result = document["result"]
    seen, rates, attacks = (
        Policy.from_dict(result["policy"]),
        result["verdicts"]["rules"],
        strong(result),
    )
    without = {name: rule for name, rule in own.detectors.items() if name not in seen.detectors}
    return {
        "record": record,
        "commit": document["surroundings"]["commit"],
        "zoo": result.get("zoo", ""),
        "policy": {"name": seen.name, "version": seen.version},
        "without": sorted(without),
        "rules": detection_digest(replace(seen, detectors={**seen.detectors, **without})),
        "versions": result.get("versions", {}),  # older records have them in their notes only
        "honest_not_cleared": _counts(rates["honest_not_cleared"]),
        "backdoored_not_cleared": _counts(rates["strong_not_cleared"]),
        "attacks": {
            name: {"name": plain(name), "found": item["k"], "of": item["n"]}
            for name, item in attacks.items()
        },
        "mostly_missed": [plain(name) for name, item in attacks.items() if mostly_missed(item)],
        # An attack without a working model gives as little information as one outside the zoo.
        "not_measured": [plain(name) for name in ATTACKS.names() if name not in attacks],
    }


def plain(attack: str) -> str:
    """The plain name of an attack."""
    return PLAIN.get(attack, attack.replace("_", " "))


def _counts(item: dict[str, Any]) -> dict[str, int]:
    return {"k": item["k"], "n": item["n"]}


def page(folder: Path = RECORDS) -> str:
    """The file's text."""
    return json.dumps(measured(folder), indent=1) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(page())
    print(DOCUMENT)
