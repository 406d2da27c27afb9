"""Read policies from TOML.

An unknown key, a wrong type or a number out of range raises an error that names the key.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from guard.core.errors import PolicyError
from guard.core.modality import Modality
from guard.core.shelf import Shelf
from guard.core.states import GateMode
from guard.core.training_jobs import MAX_BUDGET
from guard.policy import calibration as calibrations
from guard.policy._table import Table
from guard.policy.rules import (
    REPAIR_OTHERWISE,
    REPAIR_WHEN,
    AccuracyRule,
    CalibrationRule,
    CleanSetRule,
    CombinationRule,
    DefenseRule,
    DetectorRule,
    GateRule,
    GraphRule,
    LifetimeRule,
    Policy,
    ProofRule,
    RepairRule,
    RetrainRule,
    TrainingSetRule,
)

NATURAL = ("held", "rejected")
ON_POISON = ("rejected", "held", "reported")
ON_EXPIRY = ("warn", "review", "unpublish")
DEFAULT_DAYS = 30.0
LEAST_BUDGET = 1.0  # seconds of all detectors on one model


def load_policy(path: Path | None = None) -> Policy:
    """Read a policy file, or a packaged policy by its bare name; None reads the packaged default.

    Raises:
        PolicyError: the file is missing, is not TOML, or breaks a rule; the sentence names the key.
    """
    try:
        name = "default" if path is None else str(path)
        data = (
            files("guard.policy").joinpath(f"{name}.toml") if name in packaged() else Path(name)
        ).read_bytes()
    except OSError as error:
        raise PolicyError(f"The policy file {path} cannot be read: {error.strerror}.") from error
    try:
        value = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PolicyError(f"The policy file {path} is not valid TOML: {error}.") from error
    return policy_from(value, folder=Path() if path is None else path.parent)


def packaged() -> list[str]:
    """The names of the policies that come with the guard."""
    return sorted(
        file.name.removesuffix(".toml")
        for file in files("guard.policy").iterdir()
        if file.name.endswith(".toml")
    )


def default_policy(modality: Modality) -> Policy:
    """The packaged policy for models of a modality; without one, a policy that clears nothing."""
    if modality is Modality.IMAGES:
        return load_policy()
    return load_policy(Path(modality)) if modality in packaged() else Policy.none(modality)


def load_calibration(path: Path) -> calibrations.Calibration:
    """Read a calibration file.

    Raises:
        PolicyError: it is missing, or not what `guard calibrate` writes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(calibrations.MAX_BYTES + 1)
    except OSError as error:
        raise PolicyError(
            f"The calibration file {path} cannot be read: {error.strerror}."
        ) from error
    return calibrations.parse(data)


_SECTIONS = (
    "policy",
    "detectors",
    "purify",
    "asr",
    "cleanset",
    "accuracy",
    "natural",
    "review",
    "combination",
    "calibration",
    "proof",
    "time",
    "lifetime",
    "gate",
    "training_set",
    "graphs",
    "retrain",
    "repair",
)


def policy_from(data: dict[str, Any], *, folder: Path = Path()) -> Policy:
    """Check a decoded policy file, whose calibration file is relative to `folder`.

    Raises:
        PolicyError: as `load_policy`.
    """
    top = Table("", data, set(_SECTIONS))
    head = top.table("policy", {"name", "version", "lifetime_days", "modality"})
    detectors = {name: _detector(name, value) for name, value in top.raw("detectors", {}).items()}
    if not any(rule.required for rule in detectors.values()):
        raise PolicyError(
            "The policy requires no detector; name at least one, as [detectors.patch_inversion]."
        )
    clean = top.table("cleanset", {"min_per_class", "min_holdout"})
    accuracy = top.table("accuracy", {"min_times_chance", "max_drop", "max_class_drop"})
    natural = top.table("natural", {"action"}).text("action", "held")
    if natural not in NATURAL:
        raise PolicyError(f"natural.action must be one of {', '.join(NATURAL)}.")
    purify = top.table("purify", {"defenses"})
    days, lifetime = _lifetime(top, head)
    early, budget = _time(top)
    combination = top.table("combination", {"reject_level", "hold_level", "class_level"})
    policy = Policy(
        name=head.text("name"),
        version=head.whole("version", 1),
        lifetime_days=days,
        lifetime=lifetime,
        gate=_gate(top),
        detectors=detectors,
        defenses=_defenses(purify.raw("defenses", [])),
        asr_limit=top.table("asr", {"limit"}).number("limit", 0.10),
        cleanset=CleanSetRule(
            min_per_class=clean.whole("min_per_class", 20),
            min_holdout=clean.whole("min_holdout", 100),
        ),
        accuracy=AccuracyRule(
            min_times_chance=accuracy.number("min_times_chance", 2.0, low=1, high=1e6),
            max_drop=accuracy.number("max_drop", 0.02),
            max_class_drop=accuracy.number("max_class_drop", 0.10),
        ),
        proof=_proof(top),
        natural=natural,
        review_always=top.table("review", {"always"}).flag("always", default=False),
        stop_early=early,
        time_budget=budget,
        combination=CombinationRule(
            reject_level=combination.number("reject_level", 0.01, high=0.5),
            hold_level=combination.number("hold_level", 0.001, high=0.5),
            class_level=combination.number("class_level", 0.03, high=0.5),
        ),
        calibration=_calibration(data, top, folder),
        training_set=_training_set(top),
        modality=_modality(head),
        graphs=_graphs(top),
        retrain=_retrain(top),
        repair=_repair(top),
    )
    _check_modality(policy)
    if policy.repair.when != REPAIR_WHEN[0] and not any(rule.blind for rule in policy.defenses):
        raise PolicyError(
            f"repair.when is {policy.repair.when!r}, which needs a defense that is tried where no "
            "trigger is proven; mark one in purify.defenses as `blind = true`."
        )
    return policy


def _modality(head: Table) -> Modality:
    modality = head.text("modality", str(Modality.IMAGES))
    if modality not in set(Modality):
        raise PolicyError(f"policy.modality must be one of {', '.join(Modality)}.")
    return Modality(modality)


def _check_modality(policy: Policy) -> None:
    """Refuse methods for models of another modality; unknown names are left to who runs them."""
    if policy.modality is Modality.IMAGES and policy.graphs != GraphRule():
        raise PolicyError(f"The table graphs is for policies of modality {Modality.GRAPHS}.")
    for kind, names in (
        ("detector", list(policy.detectors)),
        ("defense", [rule.name for rule in policy.defenses]),
    ):
        shelf = Shelf[Any](f"guard.{kind}s")
        for name in names:
            if name in shelf and (own := shelf.modality(name)) is not policy.modality:
                raise PolicyError(
                    f"The policy is for {policy.modality} models and names the {kind} {name!r}, "
                    f"which is for {own} models; those need a policy of their own."
                )


def _lifetime(top: Table, head: Table) -> tuple[float, LifetimeRule]:
    """The lifetime in days, and the rest of its rules; `policy.lifetime_days` is its older name."""
    table = top.table("lifetime", {"days", "rescan_before_days", "on_expiry"})
    old = head.number("lifetime_days", DEFAULT_DAYS, low=1e-6, high=3650)
    days = table.number("days", old, low=1e-6, high=3650)
    if head.has("lifetime_days") and days != old:
        raise PolicyError(
            "lifetime.days and policy.lifetime_days are the same rule and differ; keep the first."
        )
    before = None
    if table.has("rescan_before_days"):
        before = table.number("rescan_before_days", 0.0, low=1e-6, high=3650)
        if before >= days:
            raise PolicyError(
                f"lifetime.rescan_before_days must be less than the lifetime of {days:g} days."
            )
    on_expiry = table.text("on_expiry", "unpublish")
    if on_expiry not in ON_EXPIRY:
        raise PolicyError(f"lifetime.on_expiry must be one of {', '.join(ON_EXPIRY)}.")
    return days, LifetimeRule(rescan_before_days=before, on_expiry=on_expiry)


def _time(top: Table) -> tuple[bool, float | None]:
    """Whether it stops early, and the seconds of all detectors on one model."""
    table = top.table("time", {"stop_early", "budget"})
    budget = None
    if table.has("budget"):
        budget = table.number("budget", 0.0, low=LEAST_BUDGET, high=MAX_BUDGET)
    return table.flag("stop_early", default=False), budget


def _gate(top: Table) -> GateRule:
    mode = top.table("gate", {"mode"}).text("mode", str(GateMode.ENFORCE))
    if mode not in set(GateMode):
        raise PolicyError(f"gate.mode must be one of {', '.join(GateMode)}.")
    return GateRule(mode=mode)


def _proof(top: Table) -> ProofRule:
    keys = ("max_resampled", "max_lead", "max_woken", "max_kept")
    table = top.table("proof", set(keys))
    limits = {key: table.number(key, 0.0) for key in keys if table.has(key)}
    return ProofRule(**limits)


def _training_set(top: Table) -> TrainingSetRule:
    table = top.table("training_set", {"required", "max_fdr", "min_images", "action"})
    action = table.text("action", "rejected")
    if action not in ON_POISON:
        raise PolicyError(f"training_set.action must be one of {', '.join(ON_POISON)}.")
    return TrainingSetRule(
        required=table.flag("required", default=False),
        max_fdr=table.number("max_fdr", 0.1, low=1e-6, high=0.5),
        min_images=table.whole("min_images", 15),
        action=action,
    )


def _graphs(top: Table) -> GraphRule:
    standard = asdict(GraphRule())
    table = top.table("graphs", set(standard))
    return GraphRule(**{key: table.number(key, value) for key, value in standard.items()})


def _retrain(top: Table) -> RetrainRule:
    table = top.table("retrain", {"methods", "budget_seconds", "max_open"})
    methods = table.raw("methods", [])
    if not all(isinstance(name, str) and name for name in methods):
        raise PolicyError("retrain.methods must be a list of retrainers' names.")
    return RetrainRule(
        methods=tuple(methods),
        budget_seconds=table.number("budget_seconds", 4 * 3600.0, low=1, high=MAX_BUDGET),
        max_open=table.whole("max_open", 8),
    )


def _repair(top: Table) -> RepairRule:
    table = top.table("repair", {"when", "level", "otherwise"})
    return RepairRule(
        when=_one_of(table, "when", REPAIR_WHEN),
        level=table.number("level", 0.05, low=1e-6, high=0.5),
        otherwise=_one_of(table, "otherwise", REPAIR_OTHERWISE),
    )


def _one_of(table: Table, key: str, known: Sequence[str]) -> str:
    """The text under `key`, by default the first of those that are known."""
    value = table.text(key, known[0])
    if value not in known:
        raise PolicyError(f"repair.{key} must be one of {', '.join(known)}.")
    return value


def _calibration(data: dict[str, Any], top: Table, folder: Path) -> CalibrationRule | None:
    if "calibration" not in data:
        return None
    table = top.table("calibration", {"file", "max_fpr"})
    return CalibrationRule(
        calibration=load_calibration(folder / table.text("file")),
        max_fpr=table.number("max_fpr", 0.05, low=1e-6, high=0.5),
    )


def _detector(name: str, value: Any) -> DetectorRule:
    table = Table(f"detectors.{name}", value, {"required", "params"})
    return DetectorRule(required=table.flag("required", default=True), params=_params(table))


def _defenses(values: list[Any]) -> tuple[DefenseRule, ...]:
    rules: list[DefenseRule] = []
    for value in values:
        rule = _defense(value)
        # Where there are no suspects, informed ones are skipped: nothing else may build on them.
        # So are blind ones where a trigger is proven, and the others where none is.
        if rule.after and (rule.after, rule.informed, rule.blind) not in {
            (earlier.name, earlier.informed, earlier.blind) for earlier in rules
        }:
            named = rule.after in {earlier.name for earlier in rules}
            alike = " with the same `informed` and `blind`" if named else ""
            raise PolicyError(
                f"purify.defenses.after: {rule.name!r} continues from {rule.after!r}, which is not "
                f"listed before it{alike}."
            )
        rules.append(rule)
    return tuple(rules)


def _defense(value: Any) -> DefenseRule:
    table = Table("purify.defenses", value, {"name", "params", "after", "informed", "blind"})
    after = table.text("after") if table.has("after") else ""
    return DefenseRule(
        name=table.text("name"),
        params=_params(table),
        after=after,
        informed=_one_kind(table),
        blind=table.flag("blind", default=False),
    )


def _one_kind(table: Table) -> bool:
    informed = table.flag("informed", default=False)
    if informed and table.flag("blind", default=False):
        raise PolicyError(
            f"The defense {table.text('name')!r} cannot be both `informed` and `blind`; an "
            "informed one is tried wherever training images are accused."
        )
    return informed


def _params(table: Table) -> dict[str, Any]:
    params = table.raw("params", {})
    if not all(isinstance(item, (bool, int, float, str)) for item in params.values()):
        raise PolicyError(f"{table.name}.params may hold numbers, strings and true or false only.")
    return dict(params)
