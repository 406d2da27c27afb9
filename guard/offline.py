"""The public Python API: load, scan and purify one model with no service running."""

import hashlib
import json
import math
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.core.digests import canonical_json
from guard.core.errors import ArtifactRejected, GuardError, InputError, MissingExtra
from guard.core.manifest import MANIFEST_FILE
from guard.core.modality import Modality
from guard.core.plain import to_plain
from guard.core.progress import Progress, part, silent
from guard.core.sift import SiftVerdict
from guard.core.states import Verdict
from guard.core.trainset import Suspect
from guard.core.verdict import VerdictFacts
from guard.defenses import DEFENSES
from guard.offline_inputs import (
    curated_set,
    image_set,
    inspect_at,
    model_at,
    name_of,
    own_battery,
    policy_for,
    policy_of,
    vettable_at,
)
from guard.offline_sift import opened
from guard.policy import Decision, DefenseRule, Policy
from guard.reports.report import Report
from guard.vetting import examine, parent_comparison, report
from guard.vetting.accused import AccusedImages, gathered
from guard.vetting.model_path import locate
from guard.vetting.molecules_shown import with_molecules
from guard.vetting.next_defense import applicable
from guard.vetting.parameters import checked
from guard.vetting.tournament import Candidate, Tournament, Work
from guard.vetting.training_set import sift_named

if TYPE_CHECKING:
    from guard.core.pairs import CuratedPairs
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel
    from guard.trainsets import TrainingSet
_START = 0.02  # of the progress, for what comes before the first method


def load_model(path: str | Path) -> Any:
    """Open a model as a torch module: float images in [0, 1] as N,C,H,W in, logits N,K out.

    A text-to-graph model is a `guard.graphs.model.GraphModel`, whose `generate` gives SMILES.

    Normalisation is inside. Nothing from the file is executed; purified models load the same way.

    A script may import timm and torchvision beside this, before or after. Should that end with
    "operator torchvision::nms does not exist", the guard is not installed but run from its source
    folder: call `guard.ml.networks.torchvision_shim.install()` first (docs/decisions/0023).

    Args:
        path: a model file with `config.json` beside it, a folder that holds both, or a canonical
            file of the guard.

    Raises:
        InputError: there is no such file.
        ArtifactRejected: a rule of the format, the manifest or the architecture is broken.
    """
    with tempfile.TemporaryDirectory() as folder:
        inspected = inspect_at(Path(path), Path(folder))
        return examine.open_model(inspected.canonical, device="cpu")


def scan(
    path: str | Path,
    *,
    cleanset: "str | Path | CuratedSet | CuratedPairs",
    policy: "str | Path | Policy | None" = None,
    seed: int = 0,
    device: str | None = None,
    progress: Progress | None = None,
    seconds: float = math.inf,
) -> Report:
    """Vet one model under a policy.

    Args:
        path: as `load_model`, or `hf://ORG/NAME[@REVISION]` in the local Hugging Face cache.
        cleanset: a stored name, an image folder, a Parquet file (of images, or of pairs for a
            text-to-graph model) or an `.npz` (`images` uint8 N,C,H,W or N,H,W,C; `labels`), or a
            set that is loaded already.
        policy: a TOML file; None for the packaged policy of the model's modality.
        seed: the same seed gives the same report, to the bit, on one machine.
        device: a torch device; None takes CUDA where there is one.
        seconds: time budget of all detectors together.

    Raises:
        InputError: there is no such file, clean set or policy, or the clean set does not fit the
            model.
    """
    started, watch = time.monotonic(), progress or silent
    rules, given = policy_of(policy), model_at(path)
    with tempfile.TemporaryDirectory() as folder, own_battery():
        try:
            inspected = vettable_at(given.path, Path(folder))
            rules = policy_for(rules, inspected.manifest.modality, given=policy is not None)
            watch(_START / 2, "reading the clean set")
            curated = curated_set(cleanset)
        except (ArtifactRejected, MissingExtra) as error:
            return given.named(_not_vetted(given.path, rules, error, time.monotonic() - started))
        watch(_START, "measuring the clean accuracy")
        work = Work(rules, curated, seed, part(watch, _START, 1.0), seconds)
        model = examine.open_model(inspected.canonical, device=device)
        decision, examined = work.judge(model, inspected.digest)
        took = time.monotonic() - started
        found = work.report(decision.facts, examined, inspected, name_of(given.path), took)
        return given.named(_with_molecules(found, work, None, model, examined))


def purify(
    path: str | Path,
    *,
    cleanset: "str | Path | CuratedSet | CuratedPairs",
    out: str | Path,
    policy: "str | Path | Policy | None" = None,
    defense: str | None = None,
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: Progress | None = None,
    training_set: "str | Path | TrainingSet | None" = None,
    suspects: Sequence[Suspect] | None = None,
    trusted: Sequence[int] = (),
) -> Report:
    """Vet a model, repair it if the policy rejects it, vet the result, and write that to `out`.

    Without `defense`, the policy's defenses are tried in its order until one candidate passes, and
    a model that the policy clears is written unchanged. A model that it holds is repaired as well
    where a trigger was measured or the policy wants it: to call this is a person's decision. With
    `defense`, that one is run on the given model, whatever the verdict. Where no candidate passes,
    nothing is written, unless the policy serves the upload then.

    A training set is sifted first, unless its suspects are given. Where enough of its images are
    accused, the model is repaired whatever the verdict, the policy's informed defenses are tried
    first, and each candidate is also tried on the accused images of the proof part.

    Args:
        training_set: what taught the model, as `guard.sift` takes it.
        suspects: the images of it that a sift has accused; None to sift it here.
        trusted: with `suspects`, places of the least conspicuous images of each class.

    Raises:
        InputError: as `scan`; a defense or parameter that does not exist; suspects without a set.
    """
    started, watch = time.monotonic(), progress or silent
    rules = policy_of(policy)
    with tempfile.TemporaryDirectory() as folder, own_battery():
        try:
            inspected = vettable_at(Path(path), Path(folder))
            rules = policy_for(rules, inspected.manifest.modality, given=policy is not None)
            # A wrong name is refused before the long search.
            listed = _order(rules, defense, params)
            watch(_START / 2, "reading the clean set")
            curated = curated_set(cleanset)
            work = Work(rules, curated, seed, part(watch, _START, 1.0), math.inf)
        except (ArtifactRejected, MissingExtra) as error:
            return _not_vetted(Path(path), rules, error, time.monotonic() - started)
        watch(_START, "measuring the clean accuracy")
        model = examine.open_model(inspected.canonical, device=device)
        work, accused = _sifted(work, model, inspected.digest, training_set, suspects, trusted)
        decision, examined = work.judge(model, inspected.digest)
        blind = decision.blind and defense is None
        order = applicable(listed, suspects=accused is not None, blind=blind)
        tournament = Tournament(
            work=work,
            model=model,
            parent=inspected.digest,
            found=examined,
            folder=Path(folder),
            device=device,
            accused=accused,
            blind=blind,
        )
        wanted = defense is not None or decision.repairable or accused is not None
        made = _played(tournament, order, any_verdict=defense is not None) if wanted else None
        decision = tournament.without_copy(decision) if made is None else decision
        if (kept := _passed(made, decision, inspected, wanted=wanted and not blind)) is not None:
            write_model(Path(out), kept)
        return _reported(tournament, made, decision, inspected, name_of(Path(path)), started)


def _passed(
    made: Candidate | None, decision: Decision, inspected: examine.Inspected, *, wanted: bool
) -> examine.Inspected | None:
    """The model that may be written: a copy that passed, or an upload that needs no repair."""
    if made is not None and made.decision.verdict is Verdict.PURIFIED:
        return made.inspected
    return inspected if not wanted and decision.verdict is Verdict.CLEARED else None


def _reported(
    tournament: Tournament,
    made: Candidate | None,
    decision: Decision,
    inspected: examine.Inspected,
    name: str,
    started: float,
) -> Report:
    """The report on the candidate that was `made`, or on the upload."""
    work = tournament.work
    if made is not None:
        found = work.report(made.decision.facts, made.examined, made.inspected, name, 0.0)
        found = _with_repair(found, tournament, made)
    else:
        found = work.report(decision.facts, tournament.found, inspected, name, 0.0)
        found = replace(found, sift=work.sift_report)
        found = _with_molecules(found, work, None, tournament.model, tournament.found)
    spent = time.monotonic() - started
    return replace(found, seconds=spent, candidates=[to_plain(one) for one in tournament.tried])


def _sifted(
    work: Work,
    model: "ImageModel",
    digest: str,
    training_set: "str | Path | TrainingSet | None",
    suspects: Sequence[Suspect] | None,
    trusted: Sequence[int],
) -> tuple[Work, AccusedImages | None]:
    """The work with what a sift means for it, and the accused images; None where too few are."""
    if training_set is None:
        if suspects or trusted:
            raise InputError(
                "Accused images need the training set that they are in.", code="no_training_set"
            )
        return work, None
    rule = work.policy.training_set
    with opened(training_set, model) as (train, source):
        if suspects is not None:
            known = replace(work, sifted=True)
            return known, gathered(rule, train, suspects, trusted)
        found = sift_named(
            model, train, source, work.curated, rule, seed=work.seed, progress=work.progress
        )
        work = replace(
            work,
            sifted=found.report.verdict is not SiftVerdict.COULD_NOT_LOOK,
            sift=found.evidence(digest),
            sift_triggers=found.found.triggers,
            sift_report=found.report,
        )
        return work, found.accused(rule)


def _played(
    tournament: Tournament, order: tuple[DefenseRule, ...], *, any_verdict: bool
) -> Candidate | None:
    """The first candidate that the policy calls purified, or just the first; None without one."""
    for made in tournament.candidates(order):
        if any_verdict or made.decision.verdict is Verdict.PURIFIED:
            return made
    return None


def _with_repair(found: Report, tournament: Tournament, made: Candidate) -> Report:
    """The report with the repair's numbers; for images, with the parent's triggers on some."""
    parent = tournament.found
    found = replace(
        found, purification=made.facts, replayed_before=parent_comparison.asr_of(parent.evidence)
    )
    child = examine.open_model(made.inspected.canonical, device=tournament.device)
    if tournament.work.policy.modality is not Modality.IMAGES:
        return _with_molecules(found, tournament.work, tournament.model, child, parent)
    return report.demonstrated(
        found,
        tournament.model,
        child,
        parent.evidence,
        parent.triggers,
        tournament.work.curated.seen_by(tournament.model.manifest.input_size[0]).holdout,
    )


def _with_molecules(
    found: Report, work: Work, parent: Any, model: Any, examined: examine.Examined
) -> Report:
    """The report with drawings of molecules, where it is on a text-to-graph model.

    `examined` is of the upload: of `parent` where `model` is its repair.
    """
    if work.policy.modality is not Modality.GRAPHS:
        return found
    return with_molecules(
        found, lambda: (parent, model, work.curated), examined.evidence, examined.triggers
    )


def calibrate(
    zoo: str | Path,
    *,
    cleanset: "str | Path | CuratedSet | None" = None,
    policy: "str | Path | Policy | None" = None,
    part: str | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fit how the policy's detectors count together, on a folder of models whose truth is known.

    Args:
        cleanset: as `scan`; with it, only models of the data set that it is named after are used.
            By default each model's own clean set is.
        part: if given, only models whose truth has this `part` are used.

    Returns:
        The calibration document, and a summary of it for people.

    Raises:
        InputError: the folder holds no models or too few of a kind, or the clean set is missing.
    """
    from guard.policy.calibration import parse
    from guard.vetting import calibrate as calibrating
    from guard.vetting import population

    rules, folder = policy_of(policy), Path(zoo)
    chosen = [
        member for member in population.members(folder) if part in (None, member.truth.get("part"))
    ]
    curated = image_set(cleanset) if cleanset is not None else None
    if curated is not None:
        chosen = [member for member in chosen if member.truth["data"] == curated.facts.name]
    if not chosen:
        raise InputError(
            f"No model below {folder} belongs to this part and clean set.", code="empty_zoo"
        )
    with own_battery():
        scanned = population.scan_all(
            folder,
            chosen,
            population.detectors_of(rules),
            curated=curated,
            seed=seed,
            device=device,
            progress=progress or silent,
        )
    document = calibrating.fit(scanned, seed=seed, about=folder.resolve().name)
    return document, calibrating.summary(parse(canonical_json(document)))


def _order(
    policy: Policy, defense: str | None, params: Mapping[str, Any] | None
) -> tuple[DefenseRule, ...]:
    """The defenses to try: all of the policy's, or the named one.

    `params` override the parameters of the policy's first rule of that name.
    """
    if defense is None:
        return policy.defenses
    listed = next((dict(rule.params) for rule in policy.defenses if rule.name == defense), {})
    return (
        DefenseRule(
            name=defense, params=checked(DEFENSES.get(defense), {**listed, **dict(params or {})})
        ),
    )


def write_model(out: Path, inspected: examine.Inspected) -> None:
    """Write the weights and the manifest: both are complete before either is put in place."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        shutil.copyfile(inspected.canonical, Path(folder) / "model.safetensors")
        (Path(folder) / MANIFEST_FILE).write_text(
            json.dumps(inspected.manifest.to_dict(), indent=2) + "\n"
        )
        out.mkdir(exist_ok=True)
        for name in ("model.safetensors", MANIFEST_FILE):
            (Path(folder) / name).replace(out / name)


def _not_vetted(path: Path, policy: Policy, error: GuardError, seconds: float) -> Report:
    """Of a file that breaks a rule: unvettable. Where something is not installed: inconclusive."""
    refused = isinstance(error, ArtifactRejected)
    weights, _ = locate(path)
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Report(
        digest=digest,
        name=name_of(path),
        facts=VerdictFacts(
            verdict=Verdict.UNVETTABLE if refused else Verdict.INCONCLUSIVE,
            reasons=(error.sentence,),
        ),
        policy=policy.digest,
        seconds=seconds,
    )
