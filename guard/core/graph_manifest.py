"""The `config.json` of a text-to-graph model: the one whose `task` says so.

Unlike that of an image model it holds vocabularies and the sampler, so that the digest of the
canonical file covers all that decides what is generated. It is read without torch and without a
chemistry library, and every key is known: what is not read could not be vetted.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from guard.core.digests import canonical_json, json_digest
from guard.core.errors import ManifestRejected
from guard.core.manifest import decoded, model_args
from guard.core.modality import TASK, Modality, modality_of
from guard.core.molecules import MAX_MOTIF, is_smiles_text

MAX_PIECES, MAX_MOTIFS, MAX_TOKENS = 50_000, 1_000, 5_000
MAX_PIECE = 40  # characters
MAX_TOKEN = 100
MAX_STEPS = 1000
SCHEDULES = ("linear", "cosine")
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9_.]{0,99}")
_TOKEN = re.compile(r"[!-~]+")  # ASCII without blanks
_KEYS = frozenset(
    {TASK, "architecture", "model_args", "pieces", "motifs", "tokens", "sampler", "guard"}
)


def _refuse(code: str, sentence: str) -> ManifestRejected:
    return ManifestRejected(f"config.json: {sentence}", code=f"manifest_{code}")


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How latents are sampled; part of the manifest, so that no caller can change what was vetted.

    `steps` of a DDIM sampler (denoising diffusion implicit model), its noise `eta` (0 is
    deterministic, 1 adds as much as the diffusion did), the weight `guidance` of the prediction
    with the text against that without, and the `schedule` of the noise.
    """

    steps: int
    eta: float
    guidance: float
    schedule: str


@dataclass(frozen=True, kw_only=True)
class GraphManifest:
    """How to build a model that generates molecules from a text, and how to sample from it.

    `pieces` are the text tower's vocabulary, `motifs` the ring systems and atoms that a molecule is
    built of, as SMILES, and `tokens` what the decoder emits. Their order is that of the weights'
    rows.
    """

    modality: ClassVar[Modality] = Modality.GRAPHS
    training_set: ClassVar[None] = None  # these models name none, and no repair adds a layer
    polarizer: ClassVar[None] = None
    architecture: str
    pieces: tuple[str, ...]
    motifs: tuple[str, ...]
    tokens: tuple[str, ...]
    sampler: Sampler
    model_args: Mapping[str, Any] = field(default_factory=dict)
    cleanset: str | None = None

    @classmethod
    def parse(cls, data: bytes) -> "GraphManifest":
        """Read `config.json`.

        Raises:
            ManifestRejected: it is no JSON object, a key is repeated or unknown, or a value breaks
                a rule.
        """
        return cls.from_dict(decoded(data))

    @classmethod
    def from_dict(cls, data: Any) -> "GraphManifest":
        """Read a decoded `config.json`; raises as `parse`."""
        if not isinstance(data, dict):
            raise _refuse("no_object", "it must hold a JSON object.")
        if modality_of(data) is not cls.modality:
            raise _refuse("other_task", f"this is no {cls.modality} model.")
        if odd := sorted(data.keys() - _KEYS):
            raise _refuse(
                "unknown_key",
                f"the key {odd[0][:60]!a} is not read; a {cls.modality} model has the keys "
                f"{', '.join(sorted(_KEYS))}.",
            )
        architecture = data.get("architecture")
        if not isinstance(architecture, str) or not _ARCHITECTURE.fullmatch(architecture):
            raise _refuse("bad_architecture", "architecture must name a model.")
        return cls(
            architecture=architecture,
            model_args=model_args(data.get("model_args", {})),
            pieces=_pieces(data.get("pieces")),
            motifs=_motifs(data.get("motifs")),
            tokens=_tokens(data.get("tokens")),
            sampler=_sampler(data.get("sampler")),
            cleanset=_cleanset(data.get("guard", {})),
        )

    def to_dict(self) -> dict[str, Any]:
        """This manifest in the form of `config.json`, which `from_dict` reads back."""
        data: dict[str, Any] = {
            TASK: str(self.modality),
            "architecture": self.architecture,
            "model_args": dict(self.model_args),
            "pieces": list(self.pieces),
            "motifs": list(self.motifs),
            "tokens": list(self.tokens),
            "sampler": asdict(self.sampler),
        }
        return {**data, "guard": {"cleanset": self.cleanset}} if self.cleanset else data

    def canonical(self) -> bytes:
        """The manifest as one byte string, which is written into the canonical weights."""
        return canonical_json(self.to_dict())

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical form."""
        return json_digest(self.to_dict())


def _vocabulary(value: Any, name: str, most: int) -> tuple[str, ...]:
    """A list of distinct strings, none of them empty."""
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        raise _refuse("bad_vocabulary", f"{name} must be a list of 1 to {most} strings.")
    seen = set[str]()
    for place, item in enumerate(value):
        if not isinstance(item, str) or not item:
            raise _refuse("bad_vocabulary", f"{name}[{place}] must be a string that is not empty.")
        if item in seen:
            raise _refuse("repeated_entry", f"{name}[{place}] repeats {item[:60]!a}.")
        seen.add(item)
    return tuple(value)


def _pieces(value: Any) -> tuple[str, ...]:
    pieces = _vocabulary(value, "pieces", MAX_PIECES)
    for place, piece in enumerate(pieces):
        # Printable: no control characters, and no lone surrogates, which UTF-8 cannot hold.
        if len(piece) > MAX_PIECE or not piece.isprintable():
            raise _refuse(
                "bad_vocabulary",
                f"pieces[{place}] must be at most {MAX_PIECE} printable characters.",
            )
    return pieces


def _motifs(value: Any) -> tuple[str, ...]:
    motifs = _vocabulary(value, "motifs", MAX_MOTIFS)
    for place, motif in enumerate(motifs):
        if not is_smiles_text(motif, MAX_MOTIF):
            raise _refuse(
                "bad_vocabulary",
                f"motifs[{place}] must be the SMILES of one connected fragment, not "
                f"{motif[:60]!a}.",
            )
    return motifs


def _tokens(value: Any) -> tuple[str, ...]:
    tokens = _vocabulary(value, "tokens", MAX_TOKENS)
    for place, token in enumerate(tokens):
        if len(token) > MAX_TOKEN or not _TOKEN.fullmatch(token):
            raise _refuse(
                "bad_vocabulary",
                f"tokens[{place}] must be at most {MAX_TOKEN} ASCII characters without blanks.",
            )
    return tokens


def _sampler(value: Any) -> Sampler:
    keys = {"steps", "eta", "guidance", "schedule"}
    if not isinstance(value, dict) or value.keys() != keys:
        raise _refuse("bad_sampler", f"sampler must hold {', '.join(sorted(keys))}, nothing else.")
    steps, schedule = value["steps"], value["schedule"]
    if type(steps) is not int or not 1 <= steps <= MAX_STEPS:
        raise _refuse("bad_sampler", f"sampler.steps must be an integer in 1..{MAX_STEPS}.")
    if schedule not in SCHEDULES:
        raise _refuse("bad_sampler", f"sampler.schedule must be one of {', '.join(SCHEDULES)}.")
    return Sampler(
        steps=steps,
        eta=_number(value["eta"], "eta", 1.0),
        guidance=_number(value["guidance"], "guidance", 20.0),
        schedule=schedule,
    )


def _number(value: Any, name: str, high: float) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= high or not math.isfinite(value):
        raise _refuse("bad_sampler", f"sampler.{name} must be a number in 0..{high:g}.")
    return float(value)


def _cleanset(value: Any) -> str | None:
    """Read strictly: a training set that is named and not read would look as if it had been."""
    name = (
        value.get("cleanset") if isinstance(value, dict) and not value.keys() - {"cleanset"} else 0
    )
    if name is None:
        return None
    if not isinstance(name, str) or not 0 < len(name) <= 200 or not name.isprintable():
        raise _refuse("bad_guard", "guard may hold cleanset, the name of a clean set, and no more.")
    return name
