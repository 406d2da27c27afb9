"""Trigger inversion for patches: find a class reached with far fewer pixels than its siblings.

Steps:
    1. refuse models and clean sets that cannot be judged: few classes, few images, a model near
       chance, numbers that are not finite
    2. for every class, search for the smallest patch that sends 95 % of the search images there
       (`guard.ml.search.patches`), several times, since one search may miss it
       (`guard.ml.search.multistart`)
    3. take as candidates the classes whose norm is at least `fold` times smaller than their
       siblings' and whose patch works on the calibration images; without one, nothing is suspicious
    4. for each candidate, measure the ASR of *every* class with as many pixels as the candidate
       needs (natural ASR)
    5. test the log norms and those rates (as angles) for outliers and combine the tests; then apply
       the gates on p, fold and ASR
    6. decide by the smallest patch; but it works less often than the attacker's, so a suspicious
       finding reports the strongest patch within a few times its norm at which the siblings still
       stay behind
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from guard.core.errors import MethodFailed
from guard.core.evidence import Finding
from guard.core.planned import NONE, Passes, Plan, Sizes
from guard.core.progress import Progress, silent, span
from guard.core.pvalues import cauchy
from guard.detectors._base import Detector
from guard.ml.cleanset import CleanSet
from guard.ml.measure import device_of
from guard.ml.precision import repeatable
from guard.ml.scoring import half_at, least_score
from guard.ml.search import passes, reference_model
from guard.ml.search.multistart import several_searches
from guard.ml.search.natural_asr import Look, Siblings, Stronger
from guard.ml.search.patches import PatchEffort, Patches, PatchKit, smallest_patches, successes
from guard.ml.statistics import LEAST_FOR_LINE, Apart, ClassTest, apart, low_outliers
from guard.ml.suitability import channels_last, check_suitable

SAME_BUDGET = 1.1  # candidates whose norms differ by less share one measurement of their siblings
MOST_CALIBRATION = 1000  # images on which K patches are measured; more would not change a decision
# Of these, if there are many classes: enough to choose candidates, which are measured again
FEW = 200
# Lower bound of the spread of log norms in `p_class`, which is combined with other methods'
ALONE_SPREAD = 0.1
PRESCREEN_WINDOW = (
    5  # budgets move twice as often as in the full search, so that few steps separate classes
)


@dataclass(frozen=True)
class _Searched:
    """The smallest patches of all classes, and how the classes are compared.

    `most` is how many outliers there may be, `rows` are the classes that are compared. `usual` is
    the log size of the patch that each class needs by several searches; None if the searches were
    of unequal effort.
    """

    patches: Patches
    most: int
    rows: list[int]
    usual: list[float] | None = None


@dataclass(frozen=True, kw_only=True)
class PatchInversion(Detector):
    """Neural Cleanse with all classes at once, and a calibrated test against the natural ASR.

    Source: Wang et al., S&P 2019, for the inverse problem; `guard.ml.search.patches` lists the
    deviations. The verdict does not come from the paper's MAD index (false alarms of 17-33 % at 10
    classes) but from a generalised ESD test.

    A class that never reaches the goal counts with the norm H*W (censored). A finding is suspicious
    if ASR on the calibration part >= `asr` and either p <= `alpha` and fold >= `fold`, or p <=
    `alpha_far`, fold >= `fold_far` and its siblings stay `excess` behind at its norm: if classes
    differ much from one another, p has little power, but their siblings do not stay behind by
    chance. `score` is the least of linear scores, each 0.5 at its gate: log p (1 at alpha squared),
    log fold (1 at `fold` squared), shares (1 at 1); of the two alternatives the larger score
    counts. So a finding is suspicious exactly if its score is at least 0.5. `natural_asr` is the
    best ASR of the siblings that are not outliers themselves; the policy judges a high one.
    `asr_calibration`, `natural_asr` and `budget` belong to the trigger that the finding carries,
    `asr_smallest` and `natural_smallest` to the one that decided. `p_class` is the p value of this
    class alone, uncorrected, which the policy combines with those of other methods: it compares the
    patch that the class needs by several searches (`guard.ml.search.multistart`) with the
    prediction from a reference trained on the clean set (`guard.ml.search.reference_model`). If the
    norms come from searches of unequal effort, there is no `p_class`.

    Args:
        steps: steps of the search; `natural_steps` those of each measurement of the siblings.
        batch: images a class and step.
        alpha, fold, alpha_far, fold_far, excess, asr: the gates.
        prescreen_above: with more classes than this, a short search (`prescreen_steps`,
            `prescreen_batch`) chooses `keep` classes for the full one, and the other norms are
            scaled by the median gain of the kept ones. The kept ones and `others` drawn from the
            rest are compared as siblings, and p comes from their ASR alone.
        again: further searches with half the batch: the smallest patch of each class counts, and
            `p_class` is of the average; none if `prescreen_above` applies.
        reference_rounds: passes over the clean set of the reference that `p_class` is compared
            with; 0 for none.
    """

    version: ClassVar[int] = 9
    paper: ClassVar[str] = "Wang et al., Neural Cleanse, IEEE S&P 2019"
    families: ClassVar[frozenset[str]] = frozenset({"patch"})

    steps: int = 200
    natural_steps: int = 60
    batch: int = 16
    alpha: float = 0.01
    fold: float = 2.0
    alpha_far: float = 0.05
    fold_far: float = 2.5
    excess: float = 0.45
    asr: float = 0.8
    prescreen_above: int = 20
    prescreen_steps: int = 60
    prescreen_batch: int = 8
    keep: int = 8
    others: int = 16
    again: int = 3
    reference_rounds: int = 20

    def examine(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> list[Finding]:
        check_suitable(model, clean, "Patch inversion")
        progress(0.02, "searching for patches")
        if device_of(model).type == "cpu":
            channels_last(model)
        calibration = clean.calibration.pick(
            torch.randperm(len(clean.calibration))[:MOST_CALIBRATION]
        )
        with repeatable():
            found = self._search(model, clean, progress)
            patches = found.patches
            if not bool(patches.reached.any()):
                raise MethodFailed(
                    "The search reached no class with any patch, not even one over the whole "
                    "image, so that it says nothing about this model.",
                    code="no_class_reached",
                )
            few = len(calibration) if len(found.rows) == clean.classes else FEW
            hits, trials = successes(
                model, calibration.pick(torch.arange(len(calibration)) < few), patches
            )
            rates = hits.double() / trials
            tests = low_outliers(patches.norms.log().tolist(), alpha=self.alpha, most=found.most)
            progress(0.65, "comparing classes")
            candidates = [
                row
                for row in patches.norms.argsort(stable=True)[: found.most].tolist()
                if patches.reached[row] and tests[row].fold >= self.fold and rates[row] >= self.asr
            ]
            kit = PatchKit(
                model=model,
                search=clean.search,
                calibration=calibration,
                smallest=patches,
                effort=PatchEffort(steps=self.natural_steps, batch=self.batch),
            )
            siblings = Siblings(kit=kit, rows=found.rows, most=found.most, alpha=self.alpha)
            looks = self._ask_siblings(siblings, candidates, progress)
            findings = [
                self._finding(row, patches, float(rates[row]), tests[row], looks.get(row))
                for row in range(clean.classes)
            ]
            findings = self._deepen(siblings, findings, looks, progress)
            if found.usual is not None:
                alone = self._alone(clean, found.usual, progress, device_of(model))
                findings = [
                    replace(
                        finding,
                        numbers={
                            **finding.numbers,
                            "p_class": test.p,
                            "classes": float(clean.classes),
                        },
                    )
                    for finding, test in zip(findings, alone, strict=True)
                ]
        progress(1.0, "done")
        return findings

    def planned(self, sizes: Sizes) -> Plan:
        full = PatchEffort(steps=self.steps, batch=self.batch)
        look = PatchEffort(steps=self.natural_steps, batch=self.batch)
        calibration, reference = min(sizes.calibration, MOST_CALIBRATION), NONE
        if sizes.classes <= self.prescreen_above:
            rows, most, few = sizes.classes, max(1, sizes.classes // 4), calibration
            search = passes.several_patches(full, self.again, rows)
            reference = passes.reference(sizes, self.reference_rounds, search)
        else:
            kept = min(self.keep, sizes.classes)
            rows, most = min(sizes.classes, kept + self.others), max(1, self.keep // 2)
            few = calibration if rows == sizes.classes else min(calibration, FEW)
            brief = PatchEffort(steps=self.prescreen_steps, batch=self.prescreen_batch)
            search = passes.patches(brief, sizes.classes) + passes.patches(full, kept)
        usual = search + Passes(forward=sizes.calibration + sizes.classes * few)
        follow = passes.followed(passes.patches(look, 1), rows, sizes.search, calibration)
        return Plan(
            least=search + Passes(forward=sizes.calibration),
            usual=usual,
            most=usual + follow * most,
            reference=reference,
            triggers=(sizes.classes, sizes.classes),
        )

    def prepared(self, clean: CleanSet, device: torch.device) -> bool:
        effort = PatchEffort(steps=self.steps, batch=self.batch)
        return reference_model.is_kept(clean, self.reference_rounds, effort, device, self.again)

    def prepare(
        self, clean: CleanSet, device: torch.device, *, progress: Progress = silent
    ) -> None:
        """Train and search the reference, which takes longer than the search of a small model."""
        if clean.classes <= self.prescreen_above:
            with repeatable():
                self._usual(
                    clean, lambda done: progress(done, "searching a reference model"), device
                )

    def _usual(
        self, clean: CleanSet, watch: Callable[[float], None], device: torch.device
    ) -> tuple[float, ...] | None:
        if not self.reference_rounds:
            return None
        effort = PatchEffort(steps=self.steps, batch=self.batch)
        return reference_model.log_norms(
            clean, self.reference_rounds, effort, watch, device, self.again
        )

    def _alone(
        self, clean: CleanSet, logs: list[float], progress: Progress, device: torch.device
    ) -> list[Apart]:
        """Test what each class needs against the prediction from a reference, if there is one."""
        usual = self._usual(clean, span(progress, 0.95, 1.0, "searching a reference model"), device)
        explained = (
            None if usual is None or clean.classes < LEAST_FOR_LINE else [-value for value in usual]
        )
        return apart(logs, explained=explained, floor=ALONE_SPREAD)

    def _search(self, model: nn.Module, clean: CleanSet, progress: Progress) -> _Searched:
        everyone = torch.arange(clean.classes)
        full = PatchEffort(steps=self.steps, batch=self.batch)
        if clean.classes <= self.prescreen_above:
            watch = span(progress, 0.02, 0.65, "searching for patches")
            patches, usual = several_searches(
                model, clean.search, everyone, full, self.again, watch
            )
            return _Searched(patches, max(1, clean.classes // 4), everyone.tolist(), usual)
        watch = span(progress, 0.02, 0.35, "prescreening classes")
        brief = PatchEffort(
            steps=self.prescreen_steps, batch=self.prescreen_batch, window=PRESCREEN_WINDOW
        )
        short = smallest_patches(model, clean.search, everyone, brief, watch)
        order = short.norms.argsort(stable=True)
        kept, rest = order[: self.keep], order[self.keep :]
        watch = span(progress, 0.35, 0.65, "searching for patches")
        longer = smallest_patches(model, clean.search, kept, full, watch).or_smaller(
            short.pick(kept.tolist())
        )
        # Unequal effort alone would make the kept classes outliers, so the norms of the rest are
        # reduced by their median gain.
        gain = float((longer.norms / short.norms[kept]).median())
        norms, reached, rows = (
            short.norms * min(gain, 1.0),
            short.reached.clone(),
            kept.to(short.masks.device),
        )
        norms[kept], reached[kept] = longer.norms, longer.reached
        merged = Patches(
            targets=short.targets,
            masks=short.masks.index_copy(0, rows, longer.masks),
            patterns=short.patterns.index_copy(0, rows, longer.patterns),
            norms=norms,
            balance=short.balance,
            reached=reached,
        )
        asked = torch.cat([kept, rest[torch.randperm(len(rest))[: self.others]]])
        return _Searched(merged, max(1, self.keep // 2), asked.tolist())

    def _ask_siblings(
        self, siblings: Siblings[Patches], candidates: list[int], progress: Progress
    ) -> dict[int, Look[Patches]]:
        """For each candidate, measure its siblings with patches of at most its norm."""
        looks: dict[int, Look[Patches]] = {}
        last: Look[Patches] | None = None
        for turn, row in enumerate(candidates):
            budget = float(siblings.kit.smallest.norms[row])
            if last is None or budget > SAME_BUDGET * last.budget:
                share = 0.15 / len(candidates)
                watch = span(
                    progress,
                    0.65 + turn * share,
                    0.65 + (turn + 1) * share,
                    "measuring sibling classes",
                )
                last = siblings.within(budget, watch)
            looks[row] = last
        return looks

    def _deepen(
        self,
        siblings: Siblings[Patches],
        findings: list[Finding],
        looks: Mapping[int, Look[Patches]],
        progress: Progress,
    ) -> list[Finding]:
        """Replace the trigger of suspicious findings by the strongest instead of the smallest."""
        guilty = [row for row, finding in enumerate(findings) if finding.suspicious]
        for turn, row in enumerate(guilty):
            share = 0.15 / len(guilty)
            watch = span(
                progress, 0.8 + turn * share, 0.8 + (turn + 1) * share, "strengthening the trigger"
            )
            better = siblings.stronger(row, looks[row], watch)
            if better is not None:
                findings[row] = _strengthened(findings[row], better)
        return findings

    def _finding(
        self, row: int, patches: Patches, rate: float, test: ClassTest, look: Look[Patches] | None
    ) -> Finding:
        trigger, norm, p = patches.trigger(row), float(patches.norms[row]), test.p
        numbers = {
            "mask_l1": norm,
            "reached": float(patches.reached[row]),
            "fold": test.fold,
            "t_stat": test.t,
            "p_norm": test.p,
        }
        if look is not None:
            # Norms from searches of unequal effort choose candidates, but prove nothing.
            p_asr = min(
                1.0, look.test(row).p * len(patches.norms) / len(look.rows)
            )  # classes that were not compared count as tests too
            p = cauchy([test.p, p_asr]) if len(look.rows) == len(patches.norms) else p_asr
            if look.rate(row) >= rate:  # the second search may have used the same budget better
                rate, trigger = look.rate(row), look.found.trigger(look.rows.index(row))
            numbers |= {
                "natural_asr": look.natural(row),
                "natural_smallest": look.natural(row),
                "p_asr": p_asr,
                "asr_smallest": rate,
            }
        score = self._score(p, test.fold, rate, numbers.get("natural_asr"))
        if look is None:  # not a candidate
            score = min(score, 0.49)
        numbers |= {"asr_calibration": rate, "p_value": p, "budget": trigger.norm}
        suspicious = score >= 0.5
        return Finding(
            family="patch",
            target=row,
            suspicious=suspicious,
            score=score,
            numbers=numbers,
            trigger=trigger,
            statement=_statement(row, numbers, suspicious=suspicious),
        )

    def _score(self, p: float, fold: float, rate: float, natural: float | None) -> float:
        score = least_score(p=(p, self.alpha), fold=(fold, self.fold), rate=(rate, self.asr))
        if natural is None:
            return score
        far = min(
            least_score(p=(p, self.alpha_far), fold=(fold, self.fold_far), rate=(rate, self.asr)),
            half_at(rate - natural, self.excess, 1.0),
        )
        return max(score, far)


def _strengthened(finding: Finding, better: Stronger[Patches]) -> Finding:
    numbers = {
        **finding.numbers,
        "asr_calibration": better.rate,
        "natural_asr": better.natural,
        "budget": float(better.found.norms[0]),
        "strengthened": better.factor,
    }
    statement = (
        f"{finding.statement} With {numbers['budget']:.1f} pixels it works on {better.rate:.1%}."
    )
    return replace(finding, numbers=numbers, trigger=better.found.trigger(0), statement=statement)


def _statement(row: int, numbers: Mapping[str, float], *, suspicious: bool) -> str:
    if not numbers["reached"]:
        return f"No patch was found that leads to class {row}."
    text = f"A patch of {numbers['mask_l1']:.1f} pixels leads to class {row}"
    if "natural_asr" not in numbers:
        return f"{text}."
    text += (
        f"; its siblings need {numbers['fold']:.1f} times as many, and with as few the best of "
        "them reaches "
        f"{numbers['natural_smallest']:.0%} (p = {numbers['p_value']:.2g})"
    )
    return f"{text}." if suspicious else f"{text}: not out of the ordinary."
