"""Show what a scan would cost."""

from typing import TYPE_CHECKING

from guard.cli._output import say
from guard.core.progress import span_text

if TYPE_CHECKING:
    from guard.offline_estimate import ScanEstimate
    from guard.vetting.estimate import Range


def print_estimate(found: "ScanEstimate") -> None:
    """Print a table by detector, the total, and what the policy's time budget leaves out."""
    from guard.cli._render import console, table

    own = found.costs.own
    rows = [
        (
            one.name,
            "yes" if required else "no",
            _images(one.images),
            _images(one.searched),
            _seconds(one.seconds),
            "left out" if one.name in found.left_out else "",
        )
        for one, required in [
            (found.cost(name), rule.required) for name, rule in found.policy.detectors.items()
        ]
    ]
    rows.append(
        (own.name, "", _images(own.images), _images(own.searched), _seconds(own.seconds), "")
    )
    head = ("detector", "required", ">images", ">with gradients", ">time", "budget")
    console().print(table(head, rows))
    say(_about(found))
    for sentence in _remarks(found):
        say(sentence)


def _about(found: "ScanEstimate") -> str:
    size = "x".join(map(str, found.input_size))
    speed = found.costs.speed
    stated = (
        ""
        if speed is None
        else f"; a thousand images take {speed.forward:.3g} s forward and {speed.searched:.3g} s "
        "with gradients"
    )
    network = (
        f"{found.architecture} {size}, {found.classes} classes" if size else found.architecture
    )
    return f"{network} on {found.device}{stated}."


def _remarks(found: "ScanEstimate") -> list[str]:
    lines, unknown = [], found.costs.unknown
    if len(unknown) < len(found.costs.detectors):
        seconds, images = found.seconds, found.images_in_all
        lines.append(
            f"In all about {span_text(seconds.usual)} ({span_text(seconds.least)} to "
            f"{span_text(seconds.most)}) and {_count(images.usual)} images through the network."
        )
    if unknown:
        lines.append(f"What these cost is not known: {', '.join(unknown)}.")
    budget = found.policy.time_budget
    if budget is None:
        lines.append(f"Policy {found.policy.name} has no time budget.")
    elif not found.left_out:
        lines.append(f"That is within the policy's time budget of {span_text(budget)}.")
    else:
        needed = [name for name in found.left_out if found.policy.detectors[name].required]
        held = f" It requires {', '.join(needed)}, and clears nothing without." if needed else ""
        lines.append(
            f"The policy's time budget of {span_text(budget)} leaves out "
            f"{', '.join(found.left_out)}: what they look for is not covered.{held}"
        )
    return lines


def _images(images: "Range | None") -> str:
    if images is None:
        return "unknown"
    if images.most <= 1.05 * images.usual:
        return _count(images.usual)
    return f"{_count(images.usual)} (to {_count(images.most)})"


def _seconds(seconds: "Range | None") -> str:
    if seconds is None:
        return "unknown"
    usual, most = (_short(value) for value in (seconds.usual, seconds.most))
    return usual if usual == most else f"{usual} (to {most})"


def _short(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else span_text(seconds)


def _count(number: float) -> str:
    return f"{float(f'{number:.3g}'):,.0f}"
