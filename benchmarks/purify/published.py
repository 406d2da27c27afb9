"""What papers report for defenses, in percent, averaged over their attacks.

Source: Zhu et al., FT-SAM, ICCV 2023, arXiv 2304.11823, table 1: CIFAR-10, PreAct-ResNet18, 10 %
poison, 5 % clean data (2,500 images), ten attacks, no defense 91.24 / 95.71. Cells of TSBD, SAU,
NPD and MESA at this size were not found in any source that was accessible.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

WHERE = "CIFAR-10, PreAct-ResNet18, 10 % poison, 2,500 clean images; FT-SAM, ICCV 2023, table 1"


class Reported(NamedTuple):
    """Published numbers in percent."""

    acc: float
    asr: float
    der: float


UNDEFENDED = Reported(91.24, 95.71, 50.0)
AVERAGES = {
    "fine_tune": Reported(91.83, 38.81, 78.45),
    "fine_pruning": Reported(92.14, 21.72, 86.99),
    "nad": Reported(91.49, 23.69, 86.01),
    "anp": Reported(90.80, 30.12, 82.57),
    "i_bau": Reported(88.19, 5.73, 93.47),
    "ft_sam": Reported(92.10, 2.47, 96.62),
}


def table(summary: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown lines with measured beside published numbers, for defenses that have both."""
    lines = [
        "| defense | clean | measured: ACC loss, ASR, DER | reported: ACC loss, ASR, DER |",
        "|---|---|---|---|",
    ]
    for line in summary:
        known = AVERAGES.get(line["defense"])
        if known is None or "der" not in line:
            continue
        lines.append(
            f"| {line['defense']} | {line['fraction']:.0%} | {100 * line['acc_loss']:.1f}, "
            f"{100 * line['asr']:.1f}, "
            f"{100 * line['der']['mean']:.1f} | {UNDEFENDED.acc - known.acc:.1f}, "
            f"{known.asr:.1f}, {known.der:.1f} |"
        )
    return lines
