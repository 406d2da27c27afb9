"""What a person sees of a build.

A progress bar on a terminal, a line a model elsewhere, and a table at the end.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.zoo import ZooModel


class Watch:
    """Tells of a build on stderr; plain lines where there is no terminal or no `rich`."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._count, self._total, self._started = 0, 0, 0.0

    @contextmanager
    def building(self, total: int, done: int) -> Iterator[None]:
        """Around a build of `total` models, `done` of which are there already."""
        self._count, self._total, self._started = done, total, time.monotonic()
        self._bar = _rich_bar() if sys.stderr.isatty() else None
        if self._bar is None:
            _say(f"{total} models, {done} there already")
            yield
            return
        with self._bar:
            self._task = self._bar.add_task("models", total=total, completed=done)
            yield

    def built(self, name: str, answer: Mapping[str, Any] | str) -> None:
        """One model more; `answer` is its truth, or what went wrong."""
        self._count += 1
        line = f"{name}: {answer if isinstance(answer, str) else told(answer)}"
        if self._bar is None:
            spent = time.monotonic() - self._started
            _say(f"[{self._count}/{self._total} {spent:.0f} s] {line}")
        else:
            self._bar.console.print(line)
            self._bar.advance(self._task)


def told(truth: Mapping[str, Any]) -> str:
    """A model in a few words."""
    words = [f"acc {truth['acc']:.1%}"]
    if truth["asr"] is not None:
        words.append(f"asr {truth['asr']:.1%} ra {truth['ra']:.1%}")
    if not truth["works"]:
        words.append(truth["failed"] or "does not work")
    return ", ".join([*words, f"{truth['seconds']:.0f} s"])


def table(models: Sequence["ZooModel"]) -> str:
    """How many models of each kind there are, how many work, and their mean numbers."""
    rows: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for model in models:
        kind = model.truth["attack"] or f"honest {model.truth['hardness'] or ''}".strip()
        rows.setdefault((kind, model.truth["part"]), []).append(model.truth)
    lines = [f"{'kind':28} {'part':12} {'n':>3} {'work':>4} {'acc':>6} {'asr':>6}"]
    for (kind, part), truths in sorted(rows.items()):
        asr = [truth["asr"] for truth in truths if truth["asr"] is not None]
        lines.append(
            f"{kind:28} {part:12} {len(truths):3} {sum(truth['works'] for truth in truths):4} "
            f"{sum(truth['acc'] for truth in truths) / len(truths):6.1%} "
            f"{f'{sum(asr) / len(asr):6.1%}' if asr else '':>6}"
        )
    return "\n".join(lines)


def _rich_bar() -> Any:
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
    except ImportError:
        return None
    return Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
