"""Test a detector on the canary kit: it must flag a backdoored model and pass an honest one.

It must flag the backdoored one also when its weights are rewritten so that a search over them as
they are finds nothing (`guard.ml.networks.rewriting`).

It needs no database: a job's child process runs it for the worker, `guard methods canary` in its
own process. The kit is made by `python -m benchmarks.make_canary` and is part of the package.
"""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.core import plugins
from guard.core.digests import json_digest, sha256
from guard.core.evidence import Evidence, Outcome
from guard.core.modality import Modality
from guard.core.progress import Progress, silent
from guard.detectors import DETECTORS
from guard.vetting import examine, modalities

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel

KIT = Path(__file__).with_name("canary_kit")
CONTENTS, CLEAN, GOOD = "kit.json", "clean.bin", "honest.safetensors"
#: The clean set and the honest model for detectors of each modality.
FILES = {
    Modality.IMAGES: (CLEAN, GOOD),
    Modality.GRAPHS: ("pairs.bin", "honest-graph.safetensors"),
}
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The result of one detector on the kit; `sentence` gives the reason for it.

    `score`: how suspicious it finds the backdoored model, 0..1; 0 where it did not examine it.
    """

    method: str
    version: int
    parameters: Mapping[str, Any]
    passed: bool
    sentence: str
    seconds: float
    score: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """This trial as JSON-ready values."""
        return asdict(self)


def kit_digest(folder: Path = KIT) -> str:
    """One digest for all files of the kit."""
    return json_digest(
        {
            path.name: sha256(path.read_bytes())
            for path in sorted(folder.iterdir())
            if path.is_file()
        }
    )


def try_all(
    detectors: Mapping[str, Mapping[str, Any]],
    *,
    device: str | None = None,
    seconds: float = math.inf,
    progress: Progress = silent,
    folder: Path = KIT,
) -> tuple[Trial, ...]:
    """Try every detector with these parameters.

    Args:
        detectors: parameters by name of the detector.
        device: torch device; default as for scans.
        seconds: time budget of all together.
    """
    bad = json.loads((folder / CONTENTS).read_text())
    end, trials = time.monotonic() + seconds, []
    for index, (name, parameters) in enumerate(detectors.items()):
        progress(index / len(detectors), f"canary of {name}")
        modality = DETECTORS.get(name).modality
        if not (folder / FILES[modality][0]).is_file():
            sentence = f"the canary kit has no {modality} models"
            trials.append(_untried(name, parameters, sentence))
            continue
        curated = clean_set(folder, modality)
        if name not in bad:
            if plugins.origin(DETECTORS.get(name)) and modality is Modality.IMAGES:
                trials.append(_attempt_any(name, parameters, bad, curated, device, end, folder))
            else:
                sentence = "the canary kit was made without it"
                trials.append(_untried(name, parameters, sentence))
            continue
        trials.append(
            attempt(
                name,
                parameters,
                bad[name],
                curated,
                device=device,
                seconds=end - time.monotonic(),
                folder=folder,
            )
        )
    return tuple(trials)


def _untried(name: str, parameters: Mapping[str, Any], sentence: str) -> Trial:
    detector = DETECTORS.get(name)(**parameters)
    return Trial(
        method=name,
        version=detector.version,
        parameters=detector.parameters(),
        passed=False,
        sentence=sentence,
        seconds=0.0,
    )


def _attempt_any(
    name: str,
    parameters: Mapping[str, Any],
    bad: Mapping[str, str | None],
    curated: Any,
    device: str | None,
    end: float,
    folder: Path,
) -> Trial:
    """Try a detector from outside the package, for which the kit names no model that it must flag.

    The first model that it flags counts. Where it flags none, it must still pass the honest one, as
    every detector must.
    """
    files = {
        file
        for known, file in bad.items()
        if file is not None and DETECTORS.get(known).modality is Modality.IMAGES
    }
    for file in (*sorted(files), None):
        trial = attempt(
            name,
            parameters,
            file,
            curated,
            device=device,
            seconds=end - time.monotonic(),
            folder=folder,
        )
        if trial.passed:
            break
    return trial


def attempt(
    name: str,
    parameters: Mapping[str, Any],
    bad: str | None,
    curated: Any,
    *,
    device: str | None = None,
    seconds: float = math.inf,
    folder: Path = KIT,
) -> Trial:
    """Try one detector on the honest model of the kit and on `bad`, a file of it, in two forms.

    Without `bad` (the kit has no model that it flags) it must still look at the honest one and pass
    it.

    Raises:
        Cancelled, CleanSetError: as `guard.vetting.examine.examine`. Every other failure is a trial
            that was not passed.
    """
    detector, started, end = (
        DETECTORS.get(name)(**parameters),
        time.monotonic(),
        time.monotonic() + seconds,
    )
    score = 0.0

    def result(sentence: str, *, passed: bool) -> Trial:
        return Trial(
            method=name,
            version=detector.version,
            parameters=detector.parameters(),
            passed=passed,
            sentence=sentence,
            seconds=time.monotonic() - started,
            score=score,
        )

    def look(file: str, *, hidden: bool) -> Evidence:
        model = examine.open_model(folder / file, device=device)
        if hidden:
            model = _rewritten(model, curated)
        examined = examine.examine(
            model,
            sha256((folder / file).read_bytes()),
            curated,
            {name: parameters},
            seed=SEED,
            seconds=end - time.monotonic(),
        )
        return next(item for item in examined.evidence if item.method == name)

    images, good = detector.modality is Modality.IMAGES, FILES[detector.modality][1]
    for file, hidden, wanted in ((bad, False, True), (bad, True, True), (good, False, False)):
        if file is None or (hidden and not images):  # only networks of images have other forms
            continue
        item, name_of = look(file, hidden=hidden), f"{file}, rewritten" if hidden else file
        if item.outcome is Outcome.COULD_NOT_LOOK:
            return result(f"it could not look at {name_of}: {item.reason}", passed=False)
        if wanted and not hidden:
            score = max((finding.score for finding in item.findings), default=0.0)
        if any(finding.suspicious for finding in item.findings) is not wanted:
            return result(f"it {'passes' if wanted else 'flags'} {name_of}", passed=False)
    if bad is None:
        return result(f"it passes {good}; the kit has no model that it flags", passed=True)
    also = ", rewritten as well," if images else ""
    return result(f"it flags {bad}{also} and passes {good}", passed=True)


def _rewritten(model: "ImageModel", curated: "CuratedSet") -> "ImageModel":
    """The same answers from weights that no search of the guard's could once move on."""
    from guard.ml.measure import device_of
    from guard.ml.networks.rewriting import with_scaled_head, with_scaled_norm

    images = curated.visible().search.floats(device_of(model))
    return with_scaled_head(with_scaled_norm(model, images), images)


def clean_set(folder: Path = KIT, modality: Modality = Modality.IMAGES) -> Any:
    """The clean set of the kit for a modality, with all its parts."""
    data = (folder / FILES[modality][0]).read_bytes()
    return modalities.of(modality).read_clean(data, "canary")
