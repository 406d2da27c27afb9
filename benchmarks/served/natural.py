"""How often an honest network obeys the attacker's trigger: what no repair has to remove.

A trigger that is strong enough leads networks astray that never saw it: a pattern optimised on the
target class, a heavy tint. A served copy that obeys it as often as an honest network keeps nothing
of the backdoor, though its true ASR may be far over the limit of the served risk.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.purify.running import images_of, measured
from benchmarks.zoo import ZooModel
from guard.offline_inputs import inspect_at
from guard.vetting import examine


def twin(models: Sequence[ZooModel], model: ZooModel) -> ZooModel | None:
    """The plain honest model of the same data and architecture with the lowest seed, if any."""
    alike = [
        one
        for one in models
        if not one.truth["backdoored"]
        and not one.truth.get("hardness")
        and all(one.truth[key] == model.truth[key] for key in ("data", "architecture"))
    ]
    return min(alike, key=lambda one: one.truth["seed"], default=None)


def with_natural(
    rows: Sequence[Mapping[str, Any]], models: Sequence[ZooModel], data_dir: Path | None
) -> Iterator[dict[str, Any]]:
    """Each row with `natural`: its trigger's ASR (0..1) on the model's honest twin, or None."""
    by_name, known = {model.name: model for model in models}, dict[str, float | None]()
    for row in rows:
        name = row["model"]
        if name not in known:
            known[name] = _natural(by_name[name], models, data_dir)
        yield {**row, "natural": known[name]}


def _natural(model: ZooModel, models: Sequence[ZooModel], data_dir: Path | None) -> float | None:
    attack, honest = model.attack(), twin(models, model)
    if attack is None or honest is None:
        return None
    test = images_of(model.folder.parent, str(model.truth["data"]), data_dir).test
    with TemporaryDirectory() as folder:
        network = examine.open_model(inspect_at(honest.folder, Path(folder)).canonical)
    asr = measured(network, attack, test)["asr"]
    return None if asr is None else float(asr)
