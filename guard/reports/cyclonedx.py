"""A report as a CycloneDX 1.6 bill of materials of one machine-learning model (ML-BOM).

Format: https://cyclonedx.org/docs/1.6/json/. Written here, since cyclonedx-python-lib (11.12) has
no model card. The same report gives the same document, byte for byte.
"""

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from guard import __version__
from guard.core.digests import is_digest, json_digest
from guard.core.modality import Modality
from guard.core.states import Verdict
from guard.core.text import printable
from guard.reports._methods import Accusation, about, accusations, could_not_look
from guard.reports._metrics import limitations, metrics
from guard.reports.judged import HELP, Ruling
from guard.reports.report import Report, finite
from guard.reports.sarif import judge

_TOOL, _CLAIM, _ASSESSOR = "tool:registry-guard", "claim:verdict", "assessor:registry-guard"
_MALICIOUS_CODE = 506  # CWE-506, embedded malicious code
_INPUTS = {Modality.IMAGES: "image, float N,C,H,W in [0, 1]", Modality.GRAPHS: "text"}
_OUTPUTS = {Modality.IMAGES: "logits, one for each class", Modality.GRAPHS: "molecule"}


def render_bom(report: Report) -> dict[str, Any]:
    """The BOM of the model that a report is about."""
    component = _component(report)
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            **({"timestamp": report.issued_at} if report.issued_at else {}),
            "tools": {
                "components": [
                    {
                        "type": "application",
                        "bom-ref": _TOOL,
                        "name": "registry-guard",
                        "version": __version__,
                    }
                ]
            },
            "component": component,
        },
        "declarations": _declarations(report),
        "vulnerabilities": list(_vulnerabilities(report)),
    }
    document: dict[str, Any] = finite(bom)
    serial = uuid.uuid5(uuid.NAMESPACE_OID, json_digest(document))
    return {"serialNumber": serial.urn, **document}


def _ref(digest: str) -> str:
    return f"model:sha256:{digest}"


def _hashes(digest: str) -> dict[str, Any]:
    return {"hashes": [{"alg": "SHA-256", "content": digest}]} if is_digest(digest) else {}


def _component(report: Report) -> dict[str, Any]:
    reference = report.verdict_id
    return {
        "type": "machine-learning-model",
        "bom-ref": _ref(report.digest),
        "name": printable(report.name),
        "version": report.digest[:12],
        **_hashes(report.digest),
        **_pedigree(report),
        "modelCard": _card(report),
        **(
            {
                "externalReferences": [
                    {
                        "type": "attestation",
                        "url": f"urn:registry-guard:verdict:{reference}",
                        "comment": "The signed in-toto verdict; `guard verify` checks it.",
                    }
                ]
            }
            if reference
            else {}
        ),
        "properties": [
            {"name": f"registry-guard:{name}", "value": str(value)}
            for name, value in _properties(report).items()
            if value not in {None, ""}
        ],
    }


def _properties(report: Report) -> dict[str, Any]:
    return {
        "verdict": report.verdict,
        "score": report.score,
        "policy": report.policy,
        "source": report.source,
        "expires": report.expires_at,
        "expired": str(report.expired).lower() if report.expires_at else None,
        "coverage": ", ".join(report.facts.coverage),
        "vetted-dtype": report.facts.vetted_dtype,
        "cleanset": report.cleanset.digest if report.cleanset else None,
    }


def _pedigree(report: Report) -> dict[str, Any]:
    """The upload that a model was repaired from, or trained anew for."""
    parent, how = report.facts.parent, ""
    if report.purification is not None:
        parent = report.purification.parent
        how = f"Repaired by {report.purification.chain}."
    elif report.retraining is not None:
        parent = report.retraining.parent or None
        how = f"Trained anew by {report.retraining.method} on a training set that was sifted."
    if parent is None:
        return {"pedigree": {"notes": how}} if how else {}
    ancestor = {
        "type": "machine-learning-model",
        "bom-ref": _ref(parent),
        "name": printable(report.name),
        "version": parent[:12],
        **_hashes(parent),
    }
    return {"pedigree": {"ancestors": [ancestor], "notes": how or "Made from its ancestor."}}


def _card(report: Report) -> dict[str, Any]:
    modality = report.facts.modality
    parameters: dict[str, Any] = {
        "approach": {"type": "supervised"},
        "task": str(modality),
        "inputs": [{"format": _INPUTS[modality]}],
        "outputs": [{"format": _OUTPUTS[modality]}],
    }
    if architecture := getattr(report.manifest, "architecture", None):
        parameters["modelArchitecture"] = printable(architecture)
    if (sifted := report.facts.training_set) is not None:
        properties = [{"name": "registry-guard:sift", "value": str(sifted.result)}]
        if sifted.digest is not None:
            properties.append({"name": "registry-guard:sha256", "value": sifted.digest})
        parameters["datasets"] = [
            {
                "type": "dataset",
                "name": printable(sifted.uri),
                "contents": {"properties": properties},
            }
        ]
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": _performance(report)},
        "considerations": _considerations(report),
    }


def _performance(report: Report) -> list[dict[str, Any]]:
    return [
        {
            "type": one.kind,
            "value": f"{one.value:.4f}",
            "slice": one.slice,
            **(
                {}
                if one.low is None or one.high is None
                else {
                    "confidenceInterval": {
                        "lowerBound": f"{one.low:.4f}",
                        "upperBound": f"{one.high:.4f}",
                    }
                }
            ),
        }
        for one in metrics(report)
    ]


def _considerations(report: Report) -> dict[str, Any]:
    repair = report.purification
    found: dict[str, Any] = {
        "technicalLimitations": limitations(report),
        "ethicalConsiderations": [
            {
                "name": "A backdoor: a hidden trigger by which an attacker chooses the answer",
                "mitigationStrategy": " ".join(map(printable, HELP[judge(report).key])),
            }
        ],
    }
    if repair is not None:
        before, after = repair.acc_before.overall, repair.acc_after.overall
        found["performanceTradeoffs"] = [
            (
                f"The repair ({printable(repair.chain)}) changed the clean accuracy "
                f"from {before:.4f} to {after:.4f}."
            )
        ]
    return found


def _declarations(report: Report) -> dict[str, Any]:
    """The verdict as a claim with its evidence, and who assessed it."""
    judged = judge(report)
    evidence = [_evidence(place, item) for place, item in enumerate(report.evidence)]
    score = 1 if judged.ruling is Ruling.PASSED else 0
    return {
        "assessors": [
            {
                "bom-ref": _ASSESSOR,
                "thirdParty": False,
                "organization": {"name": "registry-guard"},
            }
        ],
        "claims": [
            {
                "bom-ref": _CLAIM,
                "target": _ref(report.digest),
                "predicate": f"{judged.key} under policy {report.policy or 'unknown'}",
                "reasoning": judged.message,
                "evidence": [item["bom-ref"] for item in evidence],
            }
        ],
        "evidence": evidence,
        "attestations": [
            {
                "summary": HELP[judged.key][0],
                "assessor": _ASSESSOR,
                "map": [
                    {
                        "claims": [_CLAIM],
                        "conformance": {"score": score, "rationale": judged.message},
                    }
                ],
            }
        ],
    }


def _evidence(place: int, item: Mapping[str, Any]) -> dict[str, Any]:
    families = ", ".join(item["families"]) or "no trigger"
    looked = "could not look" if could_not_look(item) else "looked"
    reason = f" {printable(item['reason'])}" if item.get("reason") else ""
    return {
        "bom-ref": f"evidence:{place}",
        "propertyName": f"registry-guard:method:{item['method']}:{item['version']}",
        "description": f"{about(item['method']).about} It {looked} for {families}.{reason}",
    }


def _vulnerabilities(report: Report) -> Iterator[dict[str, Any]]:
    """The accusations that the policy acted on; after a repair, none of the copy."""
    if report.verdict not in {Verdict.REJECTED, Verdict.HELD}:
        return
    found = [one for item in report.evidence for one in accusations(report, item)]
    for place, one in enumerate(found):
        if one.waiver is None:
            yield _vulnerability(report, one, place)


def _vulnerability(report: Report, one: Accusation, place: int) -> dict[str, Any]:
    rejected = report.verdict is Verdict.REJECTED
    return {
        "bom-ref": f"finding:{place}",
        "id": f"GUARD-{json_digest([report.digest, one.method, place])[:12]}",
        "source": {"name": f"registry-guard {one.method}"},
        "ratings": [{"severity": "critical" if rejected else "high", "method": "other"}],
        "cwes": [_MALICIOUS_CODE],
        "description": printable(one.finding["statement"]),
        "analysis": {"state": "exploitable" if rejected else "in_triage"},
        "affects": [{"ref": _ref(report.digest)}],
    }
