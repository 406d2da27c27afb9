"""Check a policy file and show its rules."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guard.cli._output import Format, FormatOption, print_json

if TYPE_CHECKING:
    from guard.policy import Policy

app = typer.Typer(rich_markup_mode=None, help="Check policies.")


@app.callback()
def policy() -> None:
    """Check policies."""


@app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="A policy TOML; the one in force by default.")
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Read a policy as strictly as the service does, and print its rules and digest.

    Exits 4 if the policy is invalid.
    """
    from guard.cli._environment import settings_here
    from guard.policy import load_policy

    rules = load_policy(file if file is not None else settings_here().policy_file)
    _check_methods(rules)
    if form is Format.JSON:
        print_json({"digest": rules.digest, **rules.to_dict()})
    else:
        from guard.cli._render import print_table

        print_table(
            ("rule", "value"), _rows(rules), title=f"policy {rules.name} version {rules.version}"
        )
    return 0


@app.command()
def simulate(
    file: Annotated[Path, typer.Argument(help="A policy TOML, or a packaged one's name.")],
    project: Annotated[
        str,
        typer.Option(help="Only what is in it; without, all that no project's own policy rules."),
    ] = "",
    form: FormatOption = Format.TABLE,
) -> int:
    """Decide about what is stored by another policy, and list what would change.

    Nothing runs and nothing is written. Exits 0 whatever would change.
    """
    from guard.cli._service import open_service
    from guard.policy import load_policy

    rules = load_policy(file)
    _check_methods(rules)
    from guard.flow.simulate import MISSING
    from guard.flow.simulate import simulate as run

    found = run(open_service(), rules, project)
    changes = [
        {
            "name": one.name,
            "digest": one.digest,
            "scan_id": one.scan_id,
            "served": one.served,
            "before": str(one.before),
            "after": str(one.after or MISSING),
            "reasons": list(one.reasons),
            "repair": one.repair,
        }
        for one in found.changes
    ]
    if form is Format.JSON:
        counts = [
            {"before": before, "after": after, "artifacts": number}
            for (before, after), number in found.counts.items()
        ]
        answer = {"policy": found.policy, "artifacts": found.artifacts, "repairs": found.repairs}
        print_json({**answer, "counts": counts, "changes": changes})
        return 0
    from guard.cli._render import print_table

    print_table(
        ("model", "sha256", "served", "now", "would be", "why"),
        [
            (
                one["name"],
                str(one["digest"])[:16],
                "yes" if one["served"] else "no",
                one["before"],
                one["after"],
                " ".join(reasons),
            )
            for one, reasons in zip(changes, (one.reasons for one in found.changes), strict=True)
        ],
        title=(
            f"policy {rules.name}: {len(changes)} of {found.artifacts} artifacts would change; "
            f"{found.repairs} would be repaired"
        ),
        empty="nothing would change",
    )
    return 0


def _check_methods(rules: "Policy") -> None:
    """Refuse unknown methods, which would fail every scan; imports no plug-in."""
    from guard.core.errors import PolicyError
    from guard.core.shelf import Shelf

    for kind, names in (
        ("detectors", list(rules.detectors)),
        ("defenses", [rule.name for rule in rules.defenses]),
        ("retrainers", list(rules.retrain.methods)),
    ):
        known = Shelf[Any](f"guard.{kind}").names()
        for name in names:
            if name not in known:
                sentence = f"The policy names {name!r}, but the {kind} are: {', '.join(known)}."
                raise PolicyError(sentence, code="unknown_method")


def _rows(rules: "Policy") -> list[tuple[str, str]]:
    detectors = [
        name if rule.required else f"{name} (optional)" for name, rule in rules.detectors.items()
    ]
    enough, accuracy = rules.cleanset, rules.accuracy
    return [
        ("SHA-256", rules.digest),
        ("detectors", ", ".join(detectors)),
        (
            "defenses, in order",
            ", ".join(
                f"{rule.name} (after {rule.after})" if rule.after else rule.name
                for rule in rules.defenses
                if not rule.informed and not rule.blind
            )
            or "none",
        ),
        (
            "before them, with accused training images",
            ", ".join(rule.name for rule in rules.defenses if rule.informed) or "none",
        ),
        (
            "without a proven trigger",
            ", ".join(rule.name for rule in rules.defenses if rule.blind) or "none",
        ),
        ("a copy is repaired", _repair(rules)),
        ("training set", _training_set(rules)),
        ("the service retrains", _retrain(rules)),
        ("highest ASR served (upper bound)", f"{rules.asr_limit:.1%}"),
        (
            "clean set",
            f"at least {enough.min_per_class} per class and {enough.min_holdout} in the hold-out",
        ),
        ("least accuracy to be judged", f"{accuracy.min_times_chance:g} times chance"),
        (
            "accuracy a repair may cost",
            f"{accuracy.max_drop:.1%} overall, {accuracy.max_class_drop:.1%} per class",
        ),
        ("proof of a repair", _proof(rules)),
        ("natural triggers are", rules.natural),
        (
            "combined p to reject / to hold",
            f"{rules.combination.reject_level:g} / {rules.combination.hold_level:g}",
        ),
        ("combined p of one class to hold", f"{rules.combination.class_level:g}"),
        ("calibration", _calibration(rules)),
        ("a person always looks", "yes" if rules.review_always else "no"),
        ("a verdict holds", f"{rules.lifetime_days:g} days"),
        ("it is renewed", f"{rules.rescan_before_seconds / 86400:g} days before it ends"),
        ("if no re-scan ends in time", rules.lifetime.on_expiry),
    ]


def _retrain(rules: "Policy") -> str:
    rule = rules.retrain
    if not rule.methods:
        return "nothing"
    return f"by request, with {', '.join(rule.methods)}, for at most {rule.budget_seconds:g} s each"


def _repair(rules: "Policy") -> str:
    level = rules.repair.level
    found = {
        "doubted": f"of what is not cleared, or with a p value up to {level:g}",
        "always": "of whatever could be vetted",
    }.get(rules.repair.when)
    if found is None:
        return "of what is rejected with a measured trigger"
    upload = "served if no copy passes" if rules.repair.spares else "not served"
    return f"{found}; the upload itself is {upload}"


def _training_set(rules: "Policy") -> str:
    rule = rules.training_set
    return (
        f"{'required' if rule.required else 'optional'}; at least {rule.min_images} accused images "
        f"with at most {rule.max_fdr:.0%} clean ones among them; a model that obeys them is "
        f"{rule.action}"
    )


def _proof(rules: "Policy") -> str:
    proof = rules.proof
    limits = (
        ("fresh patches", proof.max_resampled),
        ("lead in re-learning", proof.max_lead),
        ("lead in reactivation", proof.max_woken),
        ("universal perturbations that still work", proof.max_kept),
    )
    return (
        ", ".join(f"{name} at most {limit:.0%}" for name, limit in limits if limit is not None)
        or "reported only"
    )


def _calibration(rules: "Policy") -> str:
    if rules.calibration is None:
        return "none; the rules without reference models decide"
    used = rules.calibration.calibration
    return (
        f"{used.digest}, at most {rules.calibration.max_fpr:.1%} false alarms (its "
        f"{len(used.honest)} honest models certify {used.least_fpr:.1%} at best)"
    )
