"""What is tried on each cell: repairs that get the sift, retrainers, a baseline and an oracle."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import nn

from benchmarks.retrain.cells import Upload, measured
from guard.core.digests import json_digest
from guard.core.errors import MethodFailed
from guard.core.progress import Progress
from guard.defenses import DEFENSES
from guard.defenses._informed import InformedDefense
from guard.ml.training.checkpoints import FolderCheckpoint
from guard.retrainers import RETRAINERS
from guard.trainsets import Sifted
from guard.vetting.retrain import request_of

CONTROL = "its control"  # of Trap and Replace: the same without a decoder
NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Method:
    """One line of the tables.

    Attributes:
        name: on the shelf of defenses, or of retrainers if `trains`.
        parameters: other than the defaults.
        oracle: it gets the true poison in place of the sift.
    """

    name: str
    parameters: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    trains: bool = False
    oracle: bool = False

    @property
    def key(self) -> str:
        """Changes with the method's code version and parameters, so that old rows are not read."""
        made = (RETRAINERS if self.trains else DEFENSES).get(self.name)(**self.parameters)
        return json_digest([self.name, made.version, made.parameters(), self.oracle])[:8]


FINE_TUNING, RELABELLING, D_BR, PUBLISHED = (
    "fine-tuning on the clean set",
    "relabelling",
    "D-BR, bounded",
    "D-BR, as published",
)
SIFTED, ORACLE, D_ST, TRAP = "sifted", "oracle", "D-ST", "Trap and Replace"
METHODS: Mapping[str, Method] = {
    FINE_TUNING: Method("fine_tune"),
    RELABELLING: Method("relabelling"),
    D_BR: Method("d_br"),
    PUBLISHED: Method("d_br", {"published": True}),
    SIFTED: Method("sifted", trains=True),
    ORACLE: Method("sifted", trains=True, oracle=True),
    D_ST: Method("d_st", trains=True),
    TRAP: Method("trap_and_replace", trains=True),
}


def tried(label: str, given: Upload, state: Path, wait: Progress) -> list[dict[str, Any]]:
    """The rows of a method on a cell: one, or two with a control.

    Args:
        label: one of `METHODS`.
        state: a folder for a retrainer's checkpoint, from which a killed run goes on.
        wait: called after each step.
    """
    method, busy = METHODS[label], time.process_time()
    try:
        run = _retrained if method.trains else _repaired
        networks, numbers = run(method, given, state, wait)
    except MethodFailed as error:
        return [{"method": label, "failed": error.sentence}]
    seconds = time.process_time() - busy
    return [
        {
            "method": label if index == 0 else f"{label}, {CONTROL}",
            "seconds": seconds,
            "numbers": numbers,
            **measured(network, given.ground, given.accused),
        }
        for index, network in enumerate(networks)
    ]


def _repaired(
    method: Method, given: Upload, _state: Path, wait: Progress
) -> tuple[list[nn.Module], dict[str, float]]:
    defense = DEFENSES.get(method.name)(**method.parameters)
    if isinstance(defense, InformedDefense):
        if given.accused is None:
            raise MethodFailed("The sift accused too few images.", code="no_suspects")
        defense = defense.informed(given.accused.taught)
    clean = given.ground.curated.visible()
    child = defense(given.model, clean, seed=given.ground.cell.seed, progress=wait)
    return [child], {}


def _retrained(
    method: Method, given: Upload, state: Path, wait: Progress
) -> tuple[list[nn.Module], dict[str, float]]:
    of = given.ground
    found = given.sifted
    if method.oracle:
        found = Sifted(suspects=of.poison, proof=NONE, trusted=NONE, relabelled=NONE)
    facts = (of.manifest, of.train, of.curated, found, method.name, method.parameters)
    checkpoint = FolderCheckpoint(state, request_of(*facts, seed=of.cell.seed))
    made = RETRAINERS.get(method.name)(**method.parameters)(
        of.manifest,
        of.train,
        of.curated.visible(),
        found,
        checkpoint=checkpoint,
        seed=of.cell.seed,
        progress=wait,
        device="cpu",
    )
    numbers = {key: value for key, value in made.numbers.items() if math.isfinite(value)}
    checkpoint.forget()
    return [made.model, *([] if made.control is None else [made.control])], numbers
