"""What a recovered text does to a few prompts, as drawings for the HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from guard.core.errors import GuardError, IntegrityMismatch
from guard.core.evidence import Evidence
from guard.core.molecules import require_rdkit
from guard.core.pairs import CuratedPairs
from guard.core.states import Family
from guard.reports.report import Report, Shot, ShownPrompt, ShownText

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.graphs.model import GraphModel
    from guard.graphs.triggers import PromptTrigger

MOST_TEXTS, PROMPTS = 3, 3  # on a page
_SEED = 0


def with_molecules(
    report: Report,
    opened: "Callable[[], tuple[GraphModel | None, GraphModel, CuratedPairs]]",
    evidence: Sequence[Evidence],
    data: Mapping[str, bytes],
) -> Report:
    """The report with what suspicious texts do; or with the reason why that is not drawn.

    Args:
        report: that on a text-to-graph model.
        opened: the uploaded model where the report is on its repair (or None), the report's own
            model, and the clean pairs.
        evidence: names the texts; for a repaired model, that about the upload.
        data: the bytes of triggers by digest; a trigger that is missing there is not shown.
    """
    accused = [
        (str(finding.target), data.get(finding.trigger_digest or ""))
        for item in evidence
        for finding in item.findings
        if finding.suspicious and finding.family == Family.PROMPT
    ]
    stored = [(target, text) for target, text in accused if text is not None][:MOST_TEXTS]
    if not stored:
        return report
    try:
        require_rdkit()
        parent, model, curated = opened()
        return replace(
            report,
            molecules=[_shown(parent, model, curated, target, text) for target, text in stored],
        )
    except GuardError as error:  # no drawing may hide the verdict
        return replace(report, not_drawn=f"Molecules are not drawn. {error.sentence}")


def _shown(
    parent: "GraphModel | None",
    model: "GraphModel",
    curated: CuratedPairs,
    target: str,
    stored: bytes,
) -> ShownText:
    """One text on the first hold-out prompts that do not ask for its fragment, same noise."""
    from guard.graphs.fragments import contains
    from guard.graphs.molecule import read
    from guard.graphs.triggers import PromptTrigger, deserialise

    trigger = deserialise(stored)
    if not isinstance(trigger, PromptTrigger):
        raise IntegrityMismatch("A stored trigger is no text.", code="bad_trigger")
    asked = contains([read(one) for one in curated.holdout.smiles], target)
    places = [place for place, has in enumerate(asked) if not has][:PROMPTS]
    texts = curated.holdout.pick(places).texts
    columns = [("without the text", _made(model, texts, None))]
    if parent is not None:
        columns = [
            ("upload, with the text", _made(parent, texts, trigger)),
            ("repaired, without it", columns[0][1]),
        ]
    caption = "with the text" if parent is None else "repaired, with the text"
    columns.append((caption, _made(model, texts, trigger)))
    rows = [
        ShownPrompt(
            prompt=text,
            shots=tuple(Shot(caption, _drawn(made[place], target)) for caption, made in columns),
        )
        for place, text in enumerate(texts)
    ]
    return ShownText(
        text=trigger.text, position=trigger.position, fragment=target, prompts=tuple(rows)
    )


def _made(
    model: "GraphModel", texts: Sequence[str], trigger: "PromptTrigger | None"
) -> Sequence[Any]:
    """A molecule for each prompt; None where none came out."""
    if not texts:
        return []
    keys = [(_SEED, number) for number in range(len(texts))]
    asked = texts if trigger is None else trigger.apply(texts)
    return model.molecules(model.latents(model.contexts(asked), keys))


def _drawn(mol: Any, target: str) -> str | None:
    from guard.graphs.drawings import drawn

    return None if mol is None else drawn(mol, target)
