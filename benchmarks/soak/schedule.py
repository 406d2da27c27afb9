"""What is uploaded and what is killed when, all drawn from one seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.soak.kinds import KINDS, Kind

NAMES = tuple(f"net-{number}" for number in range(3))  # that good uploads share
#: Part of the stack -> how often it is drawn. `job` is one child process of a worker.
KILLED = {
    "worker-scan": 3.0, "worker-inspect": 3.0, "worker-control": 3.0, "worker-watch": 1.0,
    "job": 3.0, "valkey": 2.0, "seaweedfs": 2.0, "database": 2.0, "torchserve": 1.0,
    "relay": 1.0, "api": 1.0, "beat": 0.5, "worker-notify": 0.3,
}  # fmt: skip
LONGEST_OUTAGE = 12.0  # seconds until a part is started again
BURST = 6  # uploads that come at once, at most


@dataclass(frozen=True)
class Upload:
    """One upload: when it starts, what it is, and the folder that it goes to."""

    number: int
    at: float
    kind: Kind
    folder: str


@dataclass(frozen=True)
class Kill:
    """One SIGKILL: of a part with all its children, or of one `job` of a worker."""

    at: float
    part: str
    outage: float


def first_uploads(kind: Kind = KINDS[0]) -> list[Upload]:
    """One good upload of each shared name, so that the names are taken before others ask."""
    return [
        Upload(-1 - place, 0.0, kind, kind.folder.format(name=name, number=place, some=0))
        for place, name in enumerate(NAMES)
    ]


def uploads(count: int, seconds: float, seed: int, kinds: Sequence[Kind] = KINDS) -> list[Upload]:
    """`count` uploads in bursts over so many seconds, every kind among them by its weight."""
    rng = random.Random(f"uploads {seed}")
    drawn = list(kinds[:count])
    drawn += rng.choices(kinds, [kind.weight for kind in kinds], k=max(0, count - len(drawn)))
    rng.shuffle(drawn)
    found: list[Upload] = []
    times: list[float] = []
    while len(times) < count:
        times += [rng.uniform(0, seconds)] * rng.randint(1, BURST)
    for number, (at, kind) in enumerate(zip(sorted(times[:count]), drawn, strict=True)):
        some = number % kind.variants
        folder = kind.folder.format(name=rng.choice(NAMES), number=number, some=some)
        found.append(Upload(number, at, kind, folder))
    return found


def kills(
    count: int, seconds: float, seed: int, parts: Sequence[str] = tuple(KILLED)
) -> list[Kill]:
    """`count` kills over so many seconds, each part among them if there are enough."""
    rng = random.Random(f"kills {seed}")
    drawn = list(parts[:count])
    weights = [KILLED[part] for part in parts]
    drawn += rng.choices(parts, weights, k=max(0, count - len(drawn)))
    rng.shuffle(drawn)
    times = sorted(rng.uniform(0, seconds) for _ in range(count))
    return [
        Kill(at, part, rng.uniform(0.0, LONGEST_OUTAGE) * rng.random())
        for at, part in zip(times, drawn, strict=True)
    ]
