"""The output of a build: a progress bar on a terminal, else a line per model, and a final table."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.zoo import ZooModel


class Watch:
    """Reports a build on stderr, in plain lines if there is no terminal or no `rich`."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._count, self._total, self._started = 0, 0, 0.0

    @contextmanager
    def building(self, total: int, done: int) -> Iterator[None]:
        """Surround a build of `total` models, of which `done` exist already."""
        self._count, self._total, self._started = done, total, time.monotonic()
        self._bar = _rich_bar() if sys.stderr.isatty() else None
        if self._bar is None:
            _print(f"{total} models, {done} there already")
            yield
            return
        with self._bar:
            self._task = self._bar.add_task("models", total=total, completed=done)
            yield

    def built(self, name: str, answer: Mapping[str, Any] | str) -> None:
        """Report one more model; `answer` is its truth or its error."""
        self._count += 1
        line = f"{name}: {answer if isinstance(answer, str) else summary_of(answer)}"
        if self._bar is None:
            spent = time.monotonic() - self._started
            _print(f"[{self._count}/{self._total} {spent:.0f} s] {line}")
        else:
            self._bar.console.print(line)
            self._bar.advance(self._task)


def summary_of(truth: Mapping[str, Any]) -> str:
    """A model's numbers in one short line."""
    parts = [f"acc {truth['acc']:.1%}"]
    if truth["asr"] is not None:
        parts.append(f"asr {truth['asr']:.1%} ra {truth['ra']:.1%}")
    if not truth["works"]:
        parts.append(truth["failed"] or "does not work")
    return ", ".join([*parts, f"{truth['seconds']:.0f} s"])


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


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
