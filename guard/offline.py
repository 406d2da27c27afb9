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

from guard.core import plugins
from guard.core.contracts import Budget
from guard.core.digests import canonical_json
from guard.core.errors import ArtifactRejected, CleanSetError, InputError
from guard.core.manifest import MANIFEST_FILE
from guard.core.plain import to_plain
from guard.core.progress import Progress, silent
from guard.core.states import Verdict
from guard.core.trainset import Suspect
from guard.core.verdict import VerdictFacts
from guard.defenses import DEFENSES
from guard.policy import DefenseRule, Policy, load_policy
from guard.reports.report import Report
from guard.settings import plugin_folder
from guard.vetting import examine, parent_comparison, report
from guard.vetting.accused import AccusedImages, gathered
from guard.vetting.model_path import locate
from guard.vetting.next_defense import applicable
from guard.vetting.parameters import checked
from guard.vetting.tournament import Candidate, Tournament, Work

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel
    from guard.trainsets import TrainingSet


def load_model(path: str | Path) -> "ImageModel":
    """Open a model as a torch module: float images in [0, 1] as N,C,H,W in, logits N,K out.

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
        inspected = _inspect(Path(path), Path(folder))
        return examine.open_model(inspected.canonical, device="cpu")


def scan(
    path: str | Path,
    *,
    cleanset: "str | Path | CuratedSet",
    policy: "str | Path | Policy | None" = None,
    seed: int = 0,
    device: str | None = None,
    progress: Progress | None = None,
    seconds: float = math.inf,
) -> Report:
    """Vet one model under a policy.

    Args:
        path: as `load_model`.
        cleanset: a stored name, an image folder, a Parquet file or an `.npz` (`images` uint8
            N,C,H,W or N,H,W,C; `labels`), or a set that is loaded already.
        policy: a TOML file; None for the default policy.
        seed: the same seed gives the same report, to the bit, on one machine.
        device: a torch device; None takes CUDA where there is one.
        seconds: time budget of all detectors together.

    Raises:
        InputError: there is no such file, clean set or policy, or the clean set does not fit the
            model.
    """
    started = time.monotonic()
    rules = _policy(policy)
    with tempfile.TemporaryDirectory() as folder:
        try:
            inspected = _inspect(Path(path), Path(folder))
        except ArtifactRejected as error:
            return _unvettable(Path(path), rules, error, time.monotonic() - started)
        curated = curated_set(cleanset)
        work = Work(rules, curated, seed, progress or silent, seconds)
        model = examine.open_model(inspected.canonical, device=device)
        decision, examined = work.judge(model, inspected.digest)
        return work.report(
            decision.facts, examined, inspected, name_of(Path(path)), time.monotonic() - started
        )


def purify(
    path: str | Path,
    *,
    cleanset: "str | Path | CuratedSet",
    out: str | Path,
    policy: "str | Path | Policy | None" = None,
    defense: str | None = None,
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: Progress | None = None,
    training_set: "TrainingSet | None" = None,
    suspects: Sequence[Suspect] = (),
    trusted: Sequence[int] = (),
) -> Report:
    """Vet a model, repair it if the policy rejects it, vet the result, and write that to `out`.

    Without `defense`, the policy's defenses are tried in its order until one candidate passes, and
    a model that the policy clears is written unchanged. A model that it holds is repaired as well
    where a trigger was measured: to call this is a person's decision (the service leaves it to a
    reviewer). With `defense`, that one is run on the given model, whatever the verdict. Where no
    candidate passes, nothing is written, and the verdict is in the report.

    Where enough training images are accused, the model is repaired whatever the verdict, informed
    defenses are tried first, and each candidate is also tried on the images of the proof part.

    Args:
        training_set: what taught the model.
        suspects: the images of it that a sift accuses.
        trusted: places of the least conspicuous images of each class.

    Raises:
        InputError: as `scan`; also a defense or parameter that does not exist, and suspects
            without a training set.
    """
    started = time.monotonic()
    rules = _policy(policy)
    accused = _accused(rules, training_set, suspects, trusted)
    with tempfile.TemporaryDirectory() as folder:
        try:
            inspected = _inspect(Path(path), Path(folder))
        except ArtifactRejected as error:
            return _unvettable(Path(path), rules, error, time.monotonic() - started)
        curated, sifted = curated_set(cleanset), training_set is not None
        work = Work(rules, curated, seed, progress or silent, math.inf, sifted)
        model = examine.open_model(inspected.canonical, device=device)
        # A wrong name is refused before the long search.
        order = applicable(_order(rules, defense, params), suspects=accused is not None)
        decision, examined = work.judge(model, inspected.digest)
        tournament = Tournament(
            work=work,
            model=model,
            parent=inspected.digest,
            found=examined,
            folder=Path(folder),
            device=device,
            accused=accused,
        )
        wanted = defense is not None or decision.repairable or accused is not None
        made = _played(tournament, order, any_verdict=defense is not None) if wanted else None
        if made is not None:
            if made.decision.verdict is Verdict.PURIFIED:
                _write(Path(out), made.inspected)
            found = _with_repair(tournament, made, name_of(Path(path)))
        else:
            if not wanted and decision.verdict is Verdict.CLEARED:
                _write(Path(out), inspected)
            found = work.report(decision.facts, examined, inspected, name_of(Path(path)), 0.0)
        spent = time.monotonic() - started
        return replace(found, seconds=spent, candidates=[to_plain(one) for one in tournament.tried])


def _accused(
    rules: Policy,
    training_set: "TrainingSet | None",
    suspects: Sequence[Suspect],
    trusted: Sequence[int],
) -> AccusedImages | None:
    if training_set is None:
        if suspects or trusted:
            raise InputError(
                "Accused images need the training set that they are in.", code="no_training_set"
            )
        return None
    return gathered(rules.training_set, training_set, suspects, trusted)


def _played(
    tournament: Tournament, order: tuple[DefenseRule, ...], *, any_verdict: bool
) -> Candidate | None:
    """The first candidate that the policy calls purified, or just the first; None without one."""
    for made in tournament.candidates(order):
        if any_verdict or made.decision.verdict is Verdict.PURIFIED:
            return made
    return None


def _with_repair(tournament: Tournament, made: Candidate, name: str) -> Report:
    """The report on a candidate, with its repair's numbers and the parent's triggers on images."""
    parent = tournament.found
    found = tournament.work.report(
        made.decision.facts, made.examined, made.inspected, name, seconds=0.0
    )
    found = replace(
        found, purification=made.facts, replayed_before=parent_comparison.asr_of(parent.evidence)
    )
    child = examine.open_model(made.inspected.canonical, device=tournament.device)
    return report.demonstrated(
        found,
        tournament.model,
        child,
        parent.evidence,
        parent.triggers,
        tournament.work.curated.holdout,
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

    rules, folder = _policy(policy), Path(zoo)
    chosen = [
        member for member in population.members(folder) if part in (None, member.truth.get("part"))
    ]
    curated = curated_set(cleanset) if cleanset is not None else None
    if curated is not None:
        chosen = [member for member in chosen if member.truth["data"] == curated.facts.name]
    if not chosen:
        raise InputError(
            f"No model below {folder} belongs to this part and clean set.", code="empty_zoo"
        )
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


def curated_set(source: "str | Path | CuratedSet") -> "CuratedSet":
    """A clean set from a stored name or a path.

    Raises:
        CleanSetError: there is no such path and no such name, or the data is unusable.
        Unavailable: it is no path, and the database does not answer.
    """
    from guard.cleansets import curate, load, read_source
    from guard.ml.cleanset import CuratedSet

    if isinstance(source, CuratedSet):
        return source
    path = Path(source)
    if path.exists():
        data, facts = curate(read_source(path), path.stem)
        return CuratedSet.from_arrays(*load(data, facts.name))
    stored = _stored_cleanset(str(source))
    if stored is None:
        raise CleanSetError(
            f"{str(source)!r} is no file, no folder and no stored clean set; `guard cleanset add "
            "NAME PATH` stores one.",
            code="cleanset_unknown",
        )
    return CuratedSet.from_arrays(*load(*stored))


def _stored_cleanset(name: str) -> tuple[bytes, str] | None:
    """The bytes and the name of a stored clean set; None where there is none of that name.

    Raises:
        Unavailable: the database does not answer, which does not prove that the set is missing.
    """
    from guard.bootstrap import open_guard
    from guard.store import cleansets
    from guard.store.session import reading

    guard = open_guard()
    url = guard.engine.url
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        return None  # nothing was ever stored here, and a query must not create a database
    with reading(guard.engine) as session:
        stored = cleansets.get_by_name(session, name)
    if stored is None:
        return None
    return guard.blobs.path(stored.digest).read_bytes(), stored.name


def _inspect(path: Path, out: Path) -> examine.Inspected:
    weights, manifest = locate(path)
    return examine.inspect_upload(
        weights, weights.name, manifest.read_bytes() if manifest else None, out, budget=Budget()
    )


def name_of(path: Path) -> str:
    """The name of a model that was given as a path: its folder's name, or the file's own."""
    path = path.resolve()
    usual = path.is_file() and path.stem in {"model", "pytorch_model"}
    return path.parent.name if usual else path.stem


def _policy(policy: "str | Path | Policy | None") -> Policy:
    """The policy, read once the plug-ins that it may name are on the shelves."""
    plugins.use(plugin_folder())
    return (
        policy
        if isinstance(policy, Policy)
        else load_policy(Path(policy) if policy is not None else None)
    )


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


def _write(out: Path, inspected: examine.Inspected) -> None:
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


def _unvettable(path: Path, policy: Policy, error: ArtifactRejected, seconds: float) -> Report:
    weights, _ = locate(path)
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Report(
        digest=digest,
        name=name_of(path),
        facts=VerdictFacts(verdict=Verdict.UNVETTABLE, reasons=(error.sentence,)),
        policy=policy.digest,
        seconds=seconds,
    )
