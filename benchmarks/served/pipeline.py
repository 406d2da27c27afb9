"""One model through the whole pipeline of a policy, as the service runs it, unless that was done.

Scan and decision; where the policy repairs what it rejects, its defenses in their order, each
candidate vetted like an upload. No person acts: what is held stays held. (`guard purify` repairs a
model that is held as well, since whoever calls it has decided that.)
"""

import json
import math
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from benchmarks.purify.running import compared, images_of, measured, one_thread
from benchmarks.zoo import ZooModel, place_in_random_order
from guard.core.digests import json_digest
from guard.core.errors import GuardError
from guard.core.plain import to_plain
from guard.core.progress import silent
from guard.core.purification import summary
from guard.core.states import SERVABLE_VERDICTS, Verdict
from guard.defenses import DEFENSES
from guard.detectors import DETECTORS
from guard.offline_inputs import inspect_at
from guard.policy import Decision, Policy
from guard.vetting import examine, population
from guard.vetting.next_defense import applicable
from guard.vetting.tournament import Tournament, Tried, Work

FORM = 1  # raised where a row gets another meaning
#: What becomes of a model: served as it is, served repaired, for a person to look at, neither.
AS_UPLOADED, REPAIRED, HELD, REFUSED = "as uploaded", "repaired", "held", "refused"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A model and the policy that vets it; it is not begun after the time `until` (Unix)."""

    folder: Path
    policy: Policy
    seed: int = 0
    data_dir: Path | None = None
    device: str | None = None
    until: float = math.inf

    @property
    def key(self) -> str:
        """A key of everything that the row depends on, except the model."""
        methods = [
            [rule_name, shelf.get(rule_name)().version]
            for shelf, names in (
                (DETECTORS, tuple(self.policy.detectors)),
                (DEFENSES, tuple(rule.name for rule in self.policy.defenses)),
            )
            for rule_name in names
        ]
        return json_digest([FORM, self.policy.digest, methods, self.seed, self.device or ""])

    @property
    def file(self) -> Path:
        return self.folder / f"served-{self.policy.name}-{self.seed}.json"


def in_random_order(tasks: Sequence[Task]) -> list[Task]:
    """The same order each time: an interrupted run is a sample and not the zoo's first names."""
    return sorted(tasks, key=lambda task: place_in_random_order(task.folder.name))


def rows(tasks: Sequence[Task], jobs: int) -> Iterator[dict[str, Any]]:
    """A row for each task that was begun in time or is done already, as they finish."""
    if jobs <= 1:
        yield from filter(None, map(row_of, tasks))
        return
    with multiprocessing.get_context("spawn").Pool(jobs, one_thread, (jobs,)) as pool:
        yield from filter(None, pool.imap_unordered(row_of, tasks))


def done(task: Task) -> dict[str, Any] | None:
    """The row of a task that is finished, if nothing that it depends on has changed."""
    try:
        row = json.loads(task.file.read_text())
        return dict(row) if row["key"] == task.key else None
    except (OSError, ValueError, KeyError):
        return None


def row_of(task: Task) -> dict[str, Any] | None:
    """The row of a task; None where it is not done and too late to begin."""
    known = done(task)
    if known is not None or time.time() > task.until:
        return known
    model = ZooModel(task.folder, json.loads((task.folder / "truth.json").read_text()))
    row: dict[str, Any] = {"key": task.key, "model": model.name, "policy": task.policy.name}
    row |= {
        name: model.truth.get(name)
        for name in ("attack", "rate", "data", "architecture", "backdoored", "target")
    }
    try:
        _fill(row, task, model)
    except GuardError as error:
        row |= {"failed": error.code, "why": error.sentence}
    except Exception:  # noqa: BLE001 - one broken model must not end a night's run; it is named
        row |= {"failed": "crashed", "why": traceback.format_exc(limit=2).strip().splitlines()[-1]}
    partial = task.file.with_suffix(f".partial-{os.getpid()}")
    partial.write_text(json.dumps(row, indent=1, allow_nan=False) + "\n")
    partial.replace(task.file)
    return row


def _fill(row: dict[str, Any], task: Task, model: ZooModel) -> None:
    """Add what the policy made of the model, and the truth about what it would serve."""
    attack, name = model.attack(), task.device or "cpu"
    test = images_of(task.folder.parent, str(model.truth["data"]), task.data_dir).test

    def truth(network: nn.Module) -> dict[str, Any]:
        return measured(network, attack, test)

    with TemporaryDirectory() as folder:
        inspected = inspect_at(task.folder, Path(folder))
        upload = examine.open_model(inspected.canonical, device=name)
        row["before"] = truth(upload)
        curated = population.read_cleanset(model.cleanset)
        started, used = time.perf_counter(), time.process_time()
        work = Work(task.policy, curated, task.seed, silent, math.inf)
        decision, examined = work.judge(upload, inspected.digest)
        row |= {
            "verdict": str(decision.verdict),
            "accused": decision.facts.target,
            "asr_upper": decision.facts.asr_upper,
            "reasons": list(decision.reasons),
            "scan_seconds": round(time.perf_counter() - started, 1),
        }
        tournament = Tournament(
            work=work,
            model=upload,
            parent=inspected.digest,
            found=examined,
            folder=Path(folder),
            device=name,
            blind=decision.blind,
        )
        row["outcome"], winner = _decided(tournament, decision)
        row |= {
            "seconds": round(time.perf_counter() - started, 1),
            "cpu_seconds": round(time.process_time() - used, 1),
        }
        row["candidates"] = [_candidate(one, truth, tournament) for one in tournament.tried]
        if winner is not None:
            row["after"] = truth(_opened(tournament, winner))
        else:
            row["after"] = row["before"] if row["outcome"] == AS_UPLOADED else None
    if row["after"] is not None:
        row |= compared(row["before"], row["after"])


def _decided(tournament: Tournament, decision: Decision) -> tuple[str, str | None]:
    """What becomes of the model, and the digest of the repaired form that is served, if one is."""
    if decision.verdict in SERVABLE_VERDICTS:
        return AS_UPLOADED, None
    if decision.purify:
        rules = applicable(tournament.work.policy.defenses, suspects=False, blind=decision.blind)
        for made in tournament.candidates(rules):
            if made.decision.verdict is Verdict.PURIFIED:
                return REPAIRED, made.inspected.digest
        if (decision := tournament.without_copy(decision)).verdict in SERVABLE_VERDICTS:
            return AS_UPLOADED, None
    return (HELD if decision.verdict is Verdict.HELD else REFUSED), None


def _opened(tournament: Tournament, digest: str) -> nn.Module:
    return examine.open_model(tournament.folder / digest, device=tournament.device)


def _candidate(
    tried: Tried, truth: Callable[[nn.Module], dict[str, Any]], tournament: Tournament
) -> dict[str, Any]:
    """A candidate's verdict and proof beside the truth, which no limit of the proof has seen."""
    found: dict[str, Any] = {
        "defense": tried.defense,
        "after": list(tried.after),
        "verdict": None if tried.verdict is None else str(tried.verdict),
        "failed": tried.failed,
        "reasons": list(tried.reasons),
        "seconds": round(tried.seconds, 1),
    }
    if tried.facts is not None and tried.digest is not None:
        own = truth(_opened(tournament, tried.digest))
        found |= {"proof": to_plain(summary(tried.facts)), "acc": own["acc"], "asr": own["asr"]}
    return found
