"""The instructions of docker/Dockerfile, by stage."""

import json
import re
import shlex
from dataclasses import dataclass, field
from typing import Any

from tests.docker.compose import FOLDER

PATH = FOLDER / "Dockerfile"


@dataclass
class Stage:
    """One `FROM ... AS name` and what follows, with what the stages below it have done."""

    base: str
    runs: list[str] = field(default_factory=list)
    copies: list[tuple[list[str], str, str]] = field(default_factory=list)  # sources, target, from
    args: dict[str, str] = field(default_factory=dict)
    user: str = "0"
    command: list[str] = field(default_factory=list)


def stages() -> dict[str, Stage]:
    """Every stage, complete: with the instructions of those that it is built on."""
    found: dict[str, Stage] = {}
    text = re.sub(r"\\\n", " ", PATH.read_text())
    current = Stage("")
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            below: Any = found.get(base, Stage(base))
            current = Stage(
                below.base,
                [*below.runs],
                [*below.copies],
                {**below.args},
                below.user,
                [*below.command],
            )
            found[name] = current
        else:
            _add(current, instruction, rest)
    return found


def _add(stage: Stage, instruction: str, rest: str) -> None:
    if instruction == "RUN":
        stage.runs.append(" ".join(rest.split()))
    elif instruction == "COPY":
        names = shlex.split(rest)
        source = names.pop(0).removeprefix("--from=") if names[0].startswith("--from=") else ""
        stage.copies.append((names[:-1], names[-1], source))
    elif instruction == "ARG":
        name, _, default = rest.partition("=")
        stage.args[name] = default
    elif instruction == "USER":
        stage.user = rest
    elif instruction == "CMD":
        stage.command = json.loads(rest)
    else:
        assert instruction in {"WORKDIR", "ENV", "EXPOSE"}, instruction
