"""List detectors, defenses, formats and publishers."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from guard.cli._output import Format, FormatOption, print_json, quiet_stdout
from guard.core.modality import Modality
from guard.core.molecules import has_rdkit

if TYPE_CHECKING:
    from guard.core.plugins import PlugIn

app = typer.Typer(rich_markup_mode=None, help="Show detectors, defenses, formats and publishers.")
KINDS = ("detectors", "defenses", "sifters", "retrainers", "formats", "publishers")


@app.callback()
def methods() -> None:
    """Show detectors, defenses, formats and publishers."""


@app.command("list")
def list_(
    form: FormatOption = Format.TABLE,
    kind: Annotated[str | None, typer.Option(help=f"One of {', '.join(KINDS)}.")] = None,
) -> int:
    """List every method with its version, contract, coverage, origin and role in the policy."""
    if kind is not None and kind not in KINDS:
        raise typer.BadParameter(f"{kind!r} is not one of {', '.join(KINDS)}.", param_hint="--kind")
    with quiet_stdout():
        from guard.cli._environment import settings_here
        from guard.core import plugins

        plugins.use(settings_here().plugins)
        rows = [row for each in KINDS if kind in (None, each) for row in _of(each)]
    if form is Format.JSON:
        print_json(rows)
    else:
        from guard.cli._render import print_table

        cells = [
            (
                row["kind"],
                row["name"],
                row["version"],
                row["contract"],
                ", ".join(row["families"]),
                row["policy"],
                row["origin"],
                row["about"],
            )
            for row in rows
        ]
        titles = (
            "kind",
            "name",
            ">version",
            ">contract",
            "covers",
            "policy",
            "origin",
            "what it is",
        )
        print_table(titles, cells)
    return 0


@app.command("canary")
def canary(
    form: FormatOption = Format.TABLE,
    modality: Annotated[
        str | None,
        typer.Option(
            help="Only of the policy for these models: image-classification or text-to-graph."
        ),
    ] = None,
) -> int:
    """Test the detectors of the policies in force on this machine.

    Each must flag a model with a known backdoor and pass an honest one.
    """
    from guard.cli._environment import settings_here

    with quiet_stdout():
        from guard.bootstrap import policy_in_force
        from guard.vetting import canary_trial

        settings = settings_here()
        policies = [policy_in_force(settings, one) for one in _modalities(modality)]
        trials = canary_trial.try_all(
            {
                name: dict(rule.params)
                for policy in policies
                for name, rule in policy.detectors.items()
            },
            device=settings.device or None,
        )
    if form is Format.JSON:
        print_json([one.to_dict() for one in trials])
    else:
        from guard.cli._render import print_table

        cells = [
            (
                one.method,
                one.version,
                "yes" if one.passed else "NO",
                f"{one.seconds:.1f}",
                one.sentence,
            )
            for one in trials
        ]
        print_table(("method", ">version", "passed", ">seconds", "result"), cells)
    return 0 if trials and all(one.passed for one in trials) else 2


def _modalities(wanted: str | None) -> list[Modality]:
    """The modality that is asked for, or those whose libraries are installed here."""
    if wanted is None:
        return [one for one in Modality if one is Modality.IMAGES or has_rdkit()]
    if wanted not in set(Modality):
        choices = ", ".join(Modality)
        raise typer.BadParameter(f"{wanted!r} is not one of {choices}.", param_hint="--modality")
    return [Modality(wanted)]


def _of(kind: str) -> list[dict[str, Any]]:
    from guard.core import plugins
    from guard.core.contract_versions import CONTRACTS
    from guard.core.shelf import Shelf

    shelf: Shelf[Any] = Shelf(f"guard.{kind}")
    use = _policy_use() if kind in ("detectors", "defenses") else {}
    rows = []
    for name in shelf.names():
        facts, plug_in = shelf.declared(name), plugins.named(kind, name)
        rows.append(
            {
                "kind": kind,
                "name": name,
                "version": facts.version,
                "contract": plug_in.contract if plug_in else CONTRACTS.get(kind),
                "families": sorted(facts.families),
                "policy": use.get((kind, name), "not used" if use else ""),
                "origin": _origin(plug_in),
                "digest": plug_in.digest if plug_in else None,
                "paper": facts.paper,
                "about": facts.about,
            }
        )
    return rows


def _origin(plug_in: "PlugIn | None") -> str:
    """The plug-in's file and short digest for a table cell; the JSON has the whole digest."""
    return f"{plug_in.path.name} {plug_in.digest[:12]}" if plug_in else "built in"


def _policy_use() -> dict[tuple[str, str], str]:
    from guard.cli._environment import settings_here
    from guard.policy import load_policy

    rules = load_policy(settings_here().policy_file)
    use = {
        ("detectors", name): "required" if rule.required else "optional"
        for name, rule in rules.detectors.items()
    }
    for place, rule in enumerate(rules.defenses, 1):  # a defense listed twice is tried twice
        key = ("defenses", rule.name)
        use[key] = f"{use[key]} and {place}." if key in use else f"tried {place}."
    return use
