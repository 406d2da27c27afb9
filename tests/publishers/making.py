"""Small vetted models and the papers that go with them, made with the guard's own code."""

import io
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import torch

from guard.attest import dsse, gate
from guard.attest.keys import Signer, TrustedKeys
from guard.attest.statement import Issue, PolicyName, verdict_statement
from guard.core.contracts import ServedForm, Smoke
from guard.core.manifest import Manifest, PolarizerPlace
from guard.core.states import GateMode, Verdict
from guard.core.verdict import Gated, VerdictFacts
from guard.formats._canonical import write_canonical
from guard.ml import samples
from guard.ml.cleanset import Labelled
from guard.ml.networks import architectures

SIZE = (1, 8, 8)


@dataclass(frozen=True)
class Vetted:
    """One small network as the guard would hand it to a publisher."""

    path: Path
    digest: str
    manifest: Manifest
    model: architectures.ImageModel
    pictures: Labelled

    def open(self) -> BinaryIO:
        return self.path.open("rb")

    @cached_property
    def smoke(self) -> Smoke:
        rows = samples.probabilities(self.model, self.pictures)
        return Smoke(
            images=tuple(samples.as_png(self.pictures)),
            probabilities=tuple(tuple(row) for row in rows),
        )


def vetted(
    folder: Path,
    seed: int = 0,
    size: tuple[int, int, int] = SIZE,
    polarizer: PolarizerPlace | None = None,
) -> Vetted:
    """A random network whose answers are far from uniform.

    And a random polarizer in it if a place is given.
    """
    manifest = Manifest(
        architecture="cifar_resnet",
        num_classes=3,
        input_size=size,
        mean=(0.5,) * size[0],
        std=(0.25,) * size[0],
        model_args={"depths": [1], "width": 4},
        label_names=("cat", "dog", "cow"),
        polarizer=polarizer,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inner = architectures.build(manifest)
        for name, parameter in inner.named_parameters():
            if name.endswith("linear.weight") or ".polarizer." in name:
                torch.nn.init.normal_(parameter)
        images = torch.randint(0, 256, (2, *size), dtype=torch.uint8)
    path = folder / f"{seed}-{uuid.uuid4().hex}.safetensors"
    digest = write_canonical(architectures.export(inner), manifest, path)
    return Vetted(
        path,
        digest,
        manifest,
        architectures.wrap(manifest, inner).eval(),
        Labelled(images, torch.zeros(2, dtype=torch.int64)),
    )


@dataclass
class Authority:
    """Somebody with a signing key; `trusted` is the file where its public key stands."""

    trusted: Path
    signer: Signer = field(init=False)

    def __post_init__(self) -> None:
        self.trusted.parent.mkdir(parents=True, exist_ok=True)
        self.signer = Signer.load_or_create(self.trusted.with_name("signing.pem"))
        TrustedKeys.load(self.trusted).trust(self.signer, self.trusted)

    def envelope(
        self,
        digest: str,
        name: str,
        *,
        verdict: Verdict = Verdict.CLEARED,
        now: datetime | None = None,
        seconds: float = 3600.0,
        verdict_id: str = "",
        scan_id: str = "s",
        said: Gated | None = None,
    ) -> dict[str, object]:
        """A signed verdict."""
        issued = now or datetime.now(UTC)
        return dsse.sign(
            verdict_statement(
                digest,
                VerdictFacts(
                    verdict=verdict, reasons=(), score=0.0, coverage=("patch",), gate=said
                ),
                Issue(
                    name=name,
                    verdict_id=verdict_id or uuid.uuid4().hex,
                    scan_id=scan_id,
                    policy=PolicyName(name="test", digest="0" * 64),
                    cleanset=None,
                    basis={"kind": "policy"},
                    issued_at=issued,
                    expires_at=issued + timedelta(seconds=seconds),
                ),
            ),
            self.signer,
        )

    def approve(
        self,
        digest: str,
        name: str,
        version: str = "1.0",
        *,
        seconds: float = 3600.0,
        now: datetime | None = None,
        envelope: dict[str, object] | None = None,
        mode: GateMode = GateMode.ENFORCE,
        served: ServedForm | None = None,
    ) -> gate.Approved:
        """The gate's leave to publish, given at `now`."""
        now = now or datetime.now(UTC)
        return gate.approve(
            envelope or self.envelope(digest, name, seconds=seconds, now=now),
            TrustedKeys.load(self.trusted),
            digest=digest,
            now=now,
            revoked=frozenset(),
            name=name,
            version=version,
            signer=self.signer,
            mode=mode,
            served=served,
        )


def flip(path: Path, at: int = -5) -> None:
    """Change one bit in place, as a fault or an intruder would."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at, io.SEEK_END if at < 0 else io.SEEK_SET)
        byte = file.read(1)[0]
        file.seek(-1, io.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def wait_until(true: Callable[[], object], seconds: float = 15.0) -> bool:
    """Whether a condition comes true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.05)
    return False
