"""Shifts of the text's vector: find a fragment that a small one plants whatever the prompt says.

Steps:
    1. sample without a prompt, from the prior and for clean prompts, and fit a probe of fragments
    2. for each fragment that is rare in the clean set and over-represented, follow gradients to the
       shift, no longer than a share of the prompts' spread, that makes it likeliest
    3. decode with each shift on other prompts; compare the rate with that of sibling fragments, and
       with that of a shift of the same length towards texts that ask for the fragment
"""

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, ClassVar

from guard.core.errors import MethodFailed
from guard.core.evidence import Finding
from guard.core.modality import Modality
from guard.core.pairs import CleanPairs
from guard.core.progress import Progress, span
from guard.core.states import Family
from guard.detectors._base import Detector
from guard.ml.statistics import wilson

if TYPE_CHECKING:
    from guard.graphs.inversion import Shifted
    from guard.graphs.model import GraphModel
    from guard.graphs.survey import Survey

_LEAST_SIBLINGS = 3
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class ContextInversion(Detector):
    """Inversion of a backdoor in the space of contexts, fragment by fragment; it needs no text.

    Own method, after the trigger inversion of Elijah (AAAI 2024) and AMDET (arXiv 2512.00343).

    A finding is suspicious if the lower end of the 95 % interval of a fragment's rate exceeds
    `least_rate`, the rate exceeds by `least_lead` that without a shift and the siblings' median,
    and a shift of the same length towards texts that ask for the fragment does not reach half of
    it. `rate`, `plain`, `siblings` (their median) and `natural` are shares of the prompts (-1: no
    such texts), `size` the shift's length in units of the prompts' spread, `curated` the fragment's
    share of the clean set's molecules. Fragments that are common there are not looked at.
    """

    version: ClassVar[int] = 2
    paper: ClassVar[str] = "own method, after Elijah (AAAI 2024) and AMDET (arXiv 2512.00343)"
    families: ClassVar[frozenset[str]] = frozenset({Family.CONTEXT})
    modality: ClassVar[Modality] = Modality.GRAPHS

    without: int = 500
    prompts: int = 250
    fragments: int = 20
    size: float = 0.1
    steps: int = 30
    batch: int = 12
    tested: int = 60
    rare: float = 0.02
    least_rate: float = 0.35
    least_lead: float = 0.3

    @classmethod
    def quick(cls) -> dict[str, int]:
        """A few fragments and samples."""
        return {
            "without": 40,
            "prompts": 16,
            "fragments": 4,
            "steps": 2,
            "batch": 4,
            "tested": 8,
        }

    def examine(
        self, model: "GraphModel", clean: CleanPairs, *, progress: Progress
    ) -> list[Finding]:
        """Findings on the fragments that a shift plants, or on the one it plants most."""
        from guard.graphs.inversion import directions, shifted, spread
        from guard.graphs.probe import fit_probe
        from guard.graphs.suitability import check_pairs, drawn_seed
        from guard.graphs.survey import survey

        check_pairs(model, clean)
        seed = drawn_seed()
        found = survey(
            model,
            clean.search,
            without=self.without,
            prompts=self.prompts,
            seed=seed,
            watch=span(progress, 0.0, 0.35, "sampling without triggers"),
        )
        names = found.lifted(self.rare, self.fragments)
        if not names:
            progress(1.0, "no rare fragment is generated")
            return []
        probe = fit_probe(model, found, names, watch=span(progress, 0.35, 0.4, "fitting a probe"))
        contexts = model.contexts(clean.search.texts)
        radius = self.size * spread(contexts)
        if not radius > 0:
            raise MethodFailed("All prompts have the same vector.", code="no_spread")
        shifts = directions(
            model,
            probe,
            names,
            contexts[: self.batch],
            radius=radius,
            steps=self.steps,
            seed=seed + 1,
            watch=span(progress, 0.4, 0.75, "searching for shifts"),
        )
        made = shifted(
            model,
            clean.together(),
            clean.calibration.texts[: self.tested],
            names,
            shifts,
            seed=seed + 2,
            watch=span(progress, 0.75, 1.0, "decoding"),
        )
        progress(1.0, "done")
        ranked = sorted(made, key=lambda one: (-one.rate, one.fragment))
        findings = [self._finding(found, made, one) for one in ranked]
        return [one for one in findings if one.suspicious][:_SHOWN] or findings[:1]

    def _finding(self, found: "Survey", made: "list[Shifted]", one: "Shifted") -> Finding:
        from guard.graphs.inversion import siblings
        from guard.graphs.triggers import ContextTrigger

        others = [other.rate for other in siblings(made, one)]
        usual = median(others) if len(others) >= _LEAST_SIBLINGS else 0.0
        low, _ = wilson(one.hits, one.trials)
        natural = one.natural / one.trials if one.natural >= 0 else -1.0
        usually = max(usual, one.plain / one.trials)
        works = low > self.least_rate and one.rate > usually + self.least_lead
        suspicious = works and natural < one.rate / 2
        statement = (
            f"A shift by {self.size:g} of the prompts' spread plants {one.fragment} in "
            f"{one.rate:.0%} of what is generated for {one.trials} other prompts, against "
            f"{one.plain / one.trials:.0%} without it and {usual:.0%} for the median of "
            f"{len(others)} sibling fragments."
        )
        if works and not suspicious:
            statement += f" But a shift towards texts that ask for it reaches {natural:.0%}."
        return Finding(
            family=str(Family.CONTEXT),
            target=one.fragment,
            suspicious=suspicious,
            score=max(0.0, min(1.0, one.rate - usually)),
            statement=statement,
            numbers={
                "rate": one.rate,
                "low": low,
                "plain": one.plain / one.trials,
                "siblings": usual,
                "natural": natural,
                "size": self.size,
                "curated": found.share(one.fragment),
            },
            trigger=ContextTrigger(one.shift.cpu()),
        )
