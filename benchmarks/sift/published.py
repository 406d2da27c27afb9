"""What papers and third parties report for sifting training sets, to stand beside measured numbers.

Nobody reports an AUROC for FCT: its paper judges the sets that it finds by the repair and the
training that follow. All of these are published, none is measured here.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """A number as its source has it, and where it stands."""

    method: str
    number: str
    setting: str
    source: str


PUBLISHED = (
    Published(
        "FCT, then D-BR",
        "ASR 97.29 % to 0.31 %, ACC 92.46 % to 92.42 %",
        "CIFAR-10, ResNet-18, 10 % poison, mean of seven attacks",
        "Chen et al., NeurIPS 2022, table 2; the checkpoint is chosen on test data",
    ),
    Published(
        "FCT, then D-BR",
        "ASR 94.26 % to 32.59 %, ACC 92.95 % to 27.83 %",
        "CIFAR-10, PreAct ResNet-18, 5 % poison, mean of eight attacks",
        "BackdoorBench's leaderboard, by third parties",
    ),
    Published(
        "FCT against spectral signatures and the training loss",
        "FCT separates better; with the training loss, Blend keeps an ASR of 24.72 %",
        "CIFAR-10, 10 % poison",
        "Chen et al., NeurIPS 2022, ablation",
    ),
    Published(
        "SPECTRE (spectral signatures with a robust covariance)",
        "TPR 55.6 % and 53.6 %",
        "GTSRB and Tiny ImageNet",
        "third parties, as quoted in our notes",
    ),
    Published(
        "Beatrix",
        "F1 91.1 %; a user found TPR .55, .14, .69",
        "dynamic triggers",
        "same",
    ),
    Published(
        "activation clustering, spectral signatures",
        "no number in a source that was accessible",
        "-",
        "-",
    ),
)


def table() -> list[str]:
    """Markdown lines."""
    lines = ["| published method | published number | setting | source |", "|---|---|---|---|"]
    return lines + [f"| {' | '.join(one)} |" for one in PUBLISHED]
