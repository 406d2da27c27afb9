"""Stage 2: run each detector of the policy once per version; failures are evidence too.

A detector whose evidence is already stored is not run again. The training set that an upload names
is sifted after them (`guard.flow.sift`).
"""

from collections.abc import Sequence
from dataclasses import replace

from guard.core.errors import CleanSetError, MissingExtra
from guard.core.evidence import AnyCleanSet, CleanSetFacts, Evidence
from guard.core.manifest import Manifest
from guard.core.manifests import AnyManifest, manifest_from
from guard.core.modality import HOLDS
from guard.core.states import ScanState, Verdict
from guard.flow import _waivers, canary
from guard.flow._cleanset_cache import prepared
from guard.flow._cleanset_map import chosen
from guard.flow._handover import hand_over
from guard.flow._lease import Held
from guard.flow._observed import examined
from guard.flow._progress import Shown
from guard.flow.context import SPARE, Guard
from guard.flow.sift import sift
from guard.jobs.run import run_job
from guard.policy import Policy, unconfigured
from guard.store import artifacts, cleansets, evidence, outbox, projects, scans
from guard.store.rows import ScanRow
from guard.store.session import reading, transaction
from guard.vetting import battery_secret, canary_trial, modalities

SCAN_SEED = 0


def run(guard: Guard, held: Held) -> None:
    """Examine the scan's canonical file and store the evidence."""
    scan = held.scan()
    if scan.state is not ScanState.DETECTING or scan.canonical_digest is None:
        return
    if not guard.policy.detectors:
        hand_over(guard, held, Verdict.INCONCLUSIVE, (guard.lacking or unconfigured(guard.policy),))
        return
    try:
        cleanset = wanted_cleanset(guard, scan)
        if not canary.accepted(guard, held):
            return
        with reading(guard.engine) as session:
            known = [
                item.key
                for item in evidence.for_artifact(session, scan.canonical_digest, cleanset.digest)
            ]
        made = prepared(guard, held, cleanset)
        with guard.workspace() as out:
            request = {
                "model": str(guard.blobs.path(scan.canonical_digest)),
                "artifact": scan.canonical_digest,
                "cleanset": str(guard.blobs.path(cleanset.digest)),
                "cleanset_name": cleanset.name,
                "detectors": {
                    name: dict(rule.params) for name, rule in guard.policy.detectors.items()
                },
                "seed": SCAN_SEED,
                "seconds": guard.settings.scan_seconds,
                "budget": guard.policy.time_budget,
                "device": guard.settings.device,
                "known": known,
                "policy": early_end(guard, scan),
                "prepared": made,
                "battery": battery_secret.needed_by(
                    guard.policy.detectors, guard.settings.data_dir
                ),
            }
            answer = run_job(
                "detect",
                request,
                out,
                limits=guard.limits(guard.settings.scan_seconds + SPARE),
                on_progress=Shown(guard, held),
            )
            for digest in answer["triggers"]:
                guard.blobs.put_bytes((out / digest).read_bytes())
            smoke = guard.blobs.put_bytes((out / "smoke.json").read_bytes())
    except (CleanSetError, MissingExtra) as error:
        # The model is not at fault, but it does not pass; a person can add a clean set.
        hand_over(guard, held, Verdict.INCONCLUSIVE, (error.sentence,))
        return
    found = [Evidence.from_dict(item) for item in answer["evidence"]]
    with transaction(guard.engine) as session:
        # On its own: should the training set's store not answer, the detectors need not run again.
        held.check(session)
        new = [item for item in found if evidence.add(session, item, guard.now())]
    examined(new, guard.policy.detectors)
    manifest, sifted = manifest_from(held_manifest(guard, scan)), None
    if isinstance(manifest, Manifest) and isinstance(cleanset, CleanSetFacts):
        sifted = sift(guard, held, scan, manifest, cleanset, SCAN_SEED)
    _hand_on(guard, held, scan, cleanset, smoke, sifted)


def _hand_on(
    guard: Guard,
    held: Held,
    scan: ScanRow,
    cleanset: AnyCleanSet,
    smoke: str,
    sifted: Evidence | None,
) -> None:
    """Leave the scan to the decision, with what else was found."""
    with transaction(guard.engine) as session:
        held.check(session)
        if sifted is not None:
            evidence.add(session, sifted, guard.now())
        scans.move(
            session,
            scan.id,
            ScanState.DECIDING,
            guard.now(),
            lease=held.lease,
            cleanset_digest=cleanset.digest,
            cleanset_name=cleanset.name,
            detail=replace(
                scan.detail,
                smoke=smoke,
                cleanset_wish=unmet_wish(guard, scan),
                canary=canary_trial.kit_digest(),
                accused=None if sifted is None else sifted.blobs.get("accused"),
            ),
        )
        outbox.add(session, "decide", {"scan_id": scan.id}, guard.now())


def stopping(policy: Policy) -> dict[str, object] | None:
    """The rules by which a job stops early; None where the policy never stops early."""
    return policy.to_dict() if policy.stop_early and policy.calibration is None else None


def early_end(guard: Guard, scan: ScanRow) -> dict[str, object] | None:
    """`stopping` for this scan; where something is waived a proof may not hold, so all run."""
    return None if _waivers.counting(guard, scan) else stopping(guard.policy)


def wanted_cleanset(guard: Guard, scan: ScanRow) -> AnyCleanSet:
    """The clean set that the operator maps, the manifest names, is the default, or alone fits.

    Raises:
        CleanSetError: there is none.
    """
    with reading(guard.engine) as session:
        found = cleansets.list_all(session)
    manifest = manifest_from(held_manifest(guard, scan))
    name = _choice(guard, scan, manifest.cleanset)
    if not name and _of_kind(found, guard.settings.default_cleanset, manifest):
        name = guard.settings.default_cleanset  # it is for models of one modality alone
    if name:
        for facts in found:
            if facts.name == name:
                return _same_kind(facts, manifest)
        raise CleanSetError(
            f"There is no clean set called {name!r}; add it with `guard cleanset add {name} PATH`.",
            code="cleanset_unknown",
        )
    latest = {facts.name: facts for facts in reversed(found)}
    fitting = [facts for facts in latest.values() if _fits(facts, manifest)]
    if len(fitting) == 1:
        return fitting[0]
    why = "several clean sets fit" if fitting else "no clean set fits"
    raise CleanSetError(
        f"{_needs(manifest)}, and {why}; name one in config.json as "
        '{"guard": {"cleanset": NAME}} or add one with `guard cleanset add`.',
        code="cleanset_unknown",
    )


def _of_kind(found: Sequence[AnyCleanSet], name: str, manifest: AnyManifest) -> bool:
    """Whether the set in use under `name` is for models of this modality, or there is none."""
    facts = next((one for one in found if one.name == name), None)
    return facts is None or facts.modality is manifest.modality


def _same_kind(facts: AnyCleanSet, manifest: AnyManifest) -> AnyCleanSet:
    if facts.modality is manifest.modality:
        modalities.of(facts.modality).match(manifest, facts)  # before anything reads the images
        return facts
    raise CleanSetError(
        f"The model is for {manifest.modality}, and clean set {facts.name!r} holds "
        f"{HOLDS[facts.modality]}; name one of {HOLDS[manifest.modality]}.",
        code="cleanset_wrong_kind",
    )


def _needs(manifest: AnyManifest) -> str:
    if not isinstance(manifest, Manifest):
        return f"A {manifest.modality} model is vetted with {HOLDS[manifest.modality]}"
    size = "x".join(map(str, manifest.input_size))
    return f"The model takes {size} images of {manifest.num_classes} classes"


def _choice(guard: Guard, scan: ScanRow, wish: str | None) -> str | None:
    with reading(guard.engine) as session:
        project = projects.of_key(session, scan.bucket, scan.key)
    return chosen(guard.settings, scan, wish, project)


def unmet_wish(guard: Guard, scan: ScanRow) -> str | None:
    """The clean set that the manifest asks for and the operator's mapping did not allow."""
    wish = manifest_from(held_manifest(guard, scan)).cleanset
    return wish if wish and wish != _choice(guard, scan, wish) else None


def _fits(facts: AnyCleanSet, manifest: AnyManifest) -> bool:
    if not isinstance(facts, CleanSetFacts) or not isinstance(manifest, Manifest):
        return facts.modality is manifest.modality
    return (
        facts.channels,
        facts.height,
        facts.width,
    ) == manifest.input_size and facts.classes == manifest.num_classes


def held_manifest(guard: Guard, scan: ScanRow) -> dict[str, object]:
    """The manifest of the canonical file, as inspection stored it."""
    with reading(guard.engine) as session:
        row = artifacts.get(session, scan.canonical_digest or "")
    if row.manifest is None:
        raise CleanSetError(
            "The artifact has no stored manifest; scan it again.", code="manifest_missing"
        )
    return dict(row.manifest)
