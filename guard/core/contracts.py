"""The contracts of formats and publishers, which need no torch.

Those of detectors and defenses are in `guard.detectors._base` and `guard.defenses._base`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar, Self

from guard.core.digests import canonical_json
from guard.core.plain import Digest, Text


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits tested before anything is allocated.

    `network_bytes` is what vetting needs at least: the weights and its batches of images.
    """

    file_bytes: int = 4 << 30
    header_bytes: int = 8 << 20
    tensors: int = 20_000
    rank: int = 8
    name_bytes: int = 512
    metadata_bytes: int = 1 << 20
    parameters: int = 2_000_000_000
    seconds: float = 120.0
    memory_bytes: int = 8 << 30
    # Of a network as its manifest describes it, whatever the file holds. Published classifiers
    # have up to 2,500 tensors; the costs admit ViT-L at 224 pixels, and no network at 4096.
    network_tensors: int = 4_000
    image_operations: int = 1_000_000_000_000
    molecule_operations: int = 100_000_000_000
    network_bytes: int = 16 << 30
    classes: int = 25_000


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """One tensor as a header states it; `dtype` is safetensors' name (F32, I64, BOOL...)."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the header of a file declares, before any tensor is read."""

    format: str
    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)


class Format(ABC):
    """Reads bytes as named tensors and executes nothing.

    `vettable` is False for formats that are only recognised: `inspect` then raises an
    `ArtifactRejected` whose sentence names what to upload instead. `jailed` formats are read in a
    child process without network, secrets or a writable disk.
    """

    vettable: ClassVar[bool] = True
    jailed: ClassVar[bool] = False

    @abstractmethod
    def claims(self, head: bytes, name: str) -> bool:
        """Whether a file is of this format.

        Args:
            head: its first 4096 bytes.
            name: its name, for formats that the bytes alone do not identify.
        """

    @abstractmethod
    def inspect(self, file: BinaryIO, *, budget: Budget) -> Header:
        """Check every rule of the format that needs no tensor data.

        Raises:
            ArtifactRejected: a rule is broken; `code` names it.
        """

    @abstractmethod
    def tensors(self, file: BinaryIO, *, budget: Budget) -> dict[str, Any]:
        """Read all tensors (torch.Tensor by name), all finite.

        Raises:
            ArtifactRejected: as `inspect`, or a value is not finite.
        """


@dataclass(frozen=True, kw_only=True)
class ServedForm:
    """A file that a publisher made from the canonical weights, and serves in their place.

    `format` is `onnx`; the signed release holds both, so that the digest of what is served is bound
    to the digest of what was vetted.
    """

    format: Text
    digest: Digest


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """A publisher's confirmation that one artifact is being served."""

    publisher: str
    name: str
    version: str
    digest: str  # of the canonical weights
    archive_digest: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Served:
    """One model that a serving system answers with, as found there.

    `digest` is None where it could not be determined.
    """

    name: str
    version: str
    digest: str | None
    ready: bool
    default: bool
    detail: Mapping[str, Any] = field(default_factory=dict)


class Publisher(ABC):
    """Brings approved artifacts into serving and takes them out again.

    `publish` needs an `attest.Approved`, which only the gate makes.
    """

    @classmethod
    def configured(cls, settings: Any) -> Self:  # noqa: ARG003 - for those that need some
        """The publisher that the service uses, by its `guard.settings.Settings`."""
        return cls()

    def prepare(self, digest: str, weights: BinaryIO) -> ServedForm | None:  # noqa: ARG002 - most serve the weights
        """Make what is served in place of the weights; None where they are served themselves.

        Called before each `publish`, for an artifact that the gate lets through; what it returns
        stands in the signed release.

        Raises:
            NotServable: this publisher cannot serve this model; the sentence gives the reason.
            IntegrityMismatch: the weights are not those of `digest`.
            Unavailable: try again.
        """
        return None

    @abstractmethod
    def publish(self, approved: Any, weights: BinaryIO, smoke: "AnySmoke") -> Receipt:
        """Serve the artifact: when this returns, `state()` lists it as ready and default.

        Publishing the same digest twice gives one receipt.

        Raises:
            Unavailable: the serving system did not answer; try again.
            IntegrityMismatch: the serving system answered with something other than what was
                vetted; that has been removed again.
        """

    @abstractmethod
    def withdraw(self, name: str, version: str) -> None:
        """Stop serving it: when this returns, `state()` does not list it and its files are gone.

        A second call is harmless.
        """

    def attach(self, name: str, version: str, signature: bytes) -> None:  # noqa: B027 - see below
        """Put the model signature of a published version beside it, where people fetch it.

        Nothing is served from it. A serving system that gives out no files needs none: `guard
        export` writes it too.
        """

    def calling(self, name: str) -> str:  # noqa: ARG002 - for those that can say it
        """How a client asks the model that is served under a name; empty where nobody can."""
        return ""

    @abstractmethod
    def state(self) -> list[Served]:
        """Everything the serving system would answer with, whoever put it there."""


@dataclass(frozen=True, kw_only=True)
class Smoke:
    """Hold-out images and the vetted model's probabilities, to compare with what is served.

    `images` are PNG bytes; `probabilities[i][c]` is the vetted model's softmax output (0..1) for
    class c on image i.
    """

    what: ClassVar[str] = "image"
    images: tuple[bytes, ...]
    probabilities: tuple[tuple[float, ...], ...]
    tolerance: float = 1e-3

    @property
    def usable(self) -> bool:
        """Whether there is something to compare."""
        return bool(self.images) and len(self.images) == len(self.probabilities)

    def bodies(self) -> tuple[bytes, ...]:
        """The bodies of the requests."""
        return self.images

    def agrees(self, place: int, answer: Any) -> bool:
        """Whether the serving system's answer is the vetted model's.

        Written so that NaN, and anything that is not a list of numbers, does not pass.
        """
        given = answer.get("probabilities") if isinstance(answer, dict) else None
        return _close(given, self.probabilities[place], self.tolerance)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One request to a text-to-graph model with the vetted model's answer.

    `latents` holds a row for each of the `smiles`; a SMILES is None where decoding did not end.
    """

    text: str
    seed: int
    latents: tuple[tuple[float, ...], ...]
    smiles: tuple[str | None, ...]


@dataclass(frozen=True, kw_only=True)
class TextSmoke:
    """Hold-out prompts and the vetted text-to-graph model's answers to them."""

    what: ClassVar[str] = "prompt"
    prompts: tuple[Prompt, ...]
    tolerance: float = 1e-3

    @property
    def usable(self) -> bool:
        """Whether there is something to compare."""
        return bool(self.prompts) and all(one.latents for one in self.prompts)

    def bodies(self) -> tuple[bytes, ...]:
        """The bodies of the requests, which ask for latents as well."""
        return tuple(
            canonical_json(
                {"text": one.text, "seed": one.seed, "samples": len(one.smiles), "latents": True}
            )
            for one in self.prompts
        )

    def agrees(self, place: int, answer: Any) -> bool:
        """Whether latents (within the tolerance) and SMILES are the vetted model's."""
        wanted = self.prompts[place]
        if not isinstance(answer, dict) or answer.get("smiles") != list(wanted.smiles):
            return False
        given = answer.get("latents")
        return (
            isinstance(given, list)
            and len(given) == len(wanted.latents)
            and all(
                _close(one, other, self.tolerance)
                for one, other in zip(given, wanted.latents, strict=True)
            )
        )


AnySmoke = Smoke | TextSmoke


def _close(given: Any, expected: Sequence[float], tolerance: float) -> bool:
    return (
        isinstance(given, list)
        and len(given) == len(expected)
        and all(
            isinstance(one, float | int) and abs(one - other) <= tolerance
            for one, other in zip(given, expected, strict=True)
        )
    )
