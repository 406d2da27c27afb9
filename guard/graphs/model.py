"""A text-to-graph model: text tower, autoencoder and denoiser, built from a manifest and weights.

`build` is the only way from an upload to a model: it checks vocabularies, grammar and sampler, then
names, shapes and types of the tensors, before it allocates anything large.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import safetensors.torch
import torch
from rdkit import Chem
from torch import Tensor, nn

from guard.core.errors import InputError, ManifestRejected
from guard.graphs.denoiser import Denoiser
from guard.graphs.grammar import Grammar
from guard.graphs.molecule import MAX_HEAVY_ATOMS, read, tensors
from guard.graphs.motif_tree import molecule_of
from guard.graphs.sampler import Sampler, SamplerSettings
from guard.graphs.text_encoder import TextEncoder
from guard.graphs.text_pieces import Pieces
from guard.graphs.vae import MotifVae
from guard.ml.seeds import seeded

TASK = "text-to-graph"
ARCHITECTURE = "motif_latent_diffusion"
WEIGHTS, MANIFEST = "model.safetensors", "config.json"
Item = TypeVar("Item")
MAX_SAMPLES = 8  # of one prompt, in a request
_BATCH = 512
_TEXTS = 64  # at once: what a convolution makes of more of them is out of the cache
#: Sizes that `model_args` may hold: name, default, most.
SIZES: Mapping[str, tuple[int, int]] = {
    "text_pieces": (64, 512),  # pieces of a prompt; longer ones are cut
    "text_width": (64, 1024),
    "context": (256, 1024),
    "latent": (24, 256),
    "graph_width": (72, 1024),
    "graph_layers": (4, 10),
    "decoder_hidden": (192, 2048),
    "decoder_embedding": (64, 512),
    "denoiser_width": (192, 2048),
    "denoiser_depth": (3, 16),
    "times": (100, 1000),
    "atoms": (MAX_HEAVY_ATOMS, MAX_HEAVY_ATOMS),  # heavy atoms of a generated molecule
}


class GraphSettings(Protocol):
    """What a manifest says about a text-to-graph model; see `GraphConfig`."""

    @property
    def architecture(self) -> str: ...
    @property
    def model_args(self) -> Mapping[str, Any]: ...
    @property
    def pieces(self) -> Sequence[str]: ...
    @property
    def motifs(self) -> Sequence[str]: ...
    @property
    def tokens(self) -> Sequence[str]: ...
    @property
    def sampler(self) -> SamplerSettings: ...


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """DDIM steps, its noise (0..1), the weight of the prompt, the noise schedule."""

    steps: int = 25
    eta: float = 1.0
    guidance: float = 0.8
    schedule: str = "linear"


@dataclass(frozen=True, kw_only=True)
class GraphConfig:
    """A manifest as trainings write it; an upload's is `guard.core.graph_manifest`'s."""

    architecture: str = ARCHITECTURE
    model_args: Mapping[str, Any] = field(default_factory=dict)
    pieces: tuple[str, ...]
    motifs: tuple[str, ...]
    tokens: tuple[str, ...]
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read a decoded `config.json` of our own."""
        return cls(
            architecture=data["architecture"],
            model_args=data["model_args"],
            pieces=tuple(data["pieces"]),
            motifs=tuple(data["motifs"]),
            tokens=tuple(data["tokens"]),
            sampler=SamplerConfig(**data["sampler"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """This manifest as `config.json` holds it."""
        return {"task": TASK, **asdict(self)}


class GraphModel(nn.Module):
    """Text to molecules. Its parts are `text`, `vae` and `denoiser`; see `build` for the errors.

    Attributes:
        manifest: what it was built from.
        pieces: the text's vocabulary.
        grammar: the decoder's language.
        sampler: how latents are sampled.
    """

    def __init__(self, manifest: GraphSettings) -> None:
        super().__init__()
        sizes = sizes_of(manifest)
        self.manifest = manifest
        self.pieces = Pieces(manifest.pieces)
        self.grammar = Grammar(manifest.motifs, manifest.tokens)
        self.sampler = Sampler(manifest.sampler, sizes["times"])
        self.most_pieces, self.most_atoms = sizes["text_pieces"], sizes["atoms"]
        self.text = TextEncoder(len(self.pieces), sizes["text_width"], sizes["context"])
        self.vae = MotifVae(
            self.grammar,
            latent=sizes["latent"],
            width=sizes["graph_width"],
            layers=sizes["graph_layers"],
            hidden=sizes["decoder_hidden"],
            embedding=sizes["decoder_embedding"],
        )
        self.denoiser = Denoiser(
            latent=sizes["latent"],
            context=sizes["context"],
            width=sizes["denoiser_width"],
            depth=sizes["denoiser_depth"],
        )

    @torch.no_grad()
    def contexts(self, texts: Sequence[str]) -> Tensor:
        """Contexts float32 N,C of prompts.

        Raises:
            InputError: `prompt_empty`, and as `Pieces.numbers`.
        """
        for row, text in enumerate(texts):
            if not text.strip():
                raise InputError(f"Prompt {row + 1} is empty.", code="prompt_empty")
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        numbers = self.pieces.batch(list(places), self.most_pieces)
        parts = [self.text(part.to(self.device)) for part in numbers.split(_TEXTS)]
        if not parts:
            return torch.zeros(0, self.text.out, device=self.device)
        return torch.cat(parts)[[places[text] for text in texts]]

    @torch.no_grad()
    def latents(self, contexts: Tensor, keys: Sequence[tuple[int, int]]) -> Tensor:
        """Sampled latents float32 N,D for contexts N,C.

        Args:
            contexts: from `contexts`, or `denoiser.nothing(N)` for no prompt.
            keys: (seed, sample number) of each row's noise.
        """
        noise = self.sampler.noise(keys, self.vae.latent).to(self.device)
        parts = zip(contexts.split(_BATCH), noise.split(_BATCH), strict=True)
        return torch.cat([self.sampler.sample(self.denoiser, one, own) for one, own in parts])

    def molecules(self, latents: Tensor) -> list[Chem.Mol | None]:
        """The molecules of latents N,D; None where the decoder did not come to an end.

        Rows that decode to one tree share one molecule, which is not to be changed.
        """
        trees = self.vae.decode(latents, self.most_atoms)
        made = {id(tree): molecule_of(tree) for tree in _distinct(trees)}
        return [None if tree is None else made[id(tree)] for tree in trees]

    def smiles(self, latents: Tensor) -> list[str | None]:
        """Canonical SMILES of latents N,D; None as in `molecules`."""
        mols = self.molecules(latents)
        spelt = {id(mol): str(Chem.MolToSmiles(mol)) for mol in _distinct(mols)}
        return [None if mol is None else spelt[id(mol)] for mol in mols]

    def generate(
        self, texts: Sequence[str], samples: int = 1, seed: int = 0
    ) -> list[list[str | None]]:
        """SMILES for each prompt; the same for the same prompt and seed, whatever stands beside it.

        Raises:
            InputError: a prompt breaks a rule, or `samples_range`: not 1..`MAX_SAMPLES`, or
                `seed_range`: not 0..2^63-1.
        """
        if type(samples) is not int or not 1 <= samples <= MAX_SAMPLES:
            raise InputError(
                f"samples must be an integer in 1..{MAX_SAMPLES}.", code="samples_range"
            )
        if type(seed) is not int or not 0 <= seed < 2**63:
            raise InputError("seed must be an integer in 0..2^63-1.", code="seed_range")
        contexts = self.contexts(texts).repeat_interleave(samples, dim=0)
        keys = [(seed, number) for _ in texts for number in range(samples)]
        found = self.smiles(self.latents(contexts, keys)) if texts else []
        return [found[row * samples : (row + 1) * samples] for row in range(len(texts))]

    def null(self, count: int, seed: int = 0) -> list[str | None]:
        """SMILES sampled without any prompt."""
        contexts = self.denoiser.nothing(count).detach()
        return self.smiles(self.latents(contexts, [(seed, number) for number in range(count)]))

    def prior(self, count: int, seed: int = 0) -> list[str | None]:
        """SMILES decoded from normal latents, without the denoiser."""
        keys = [(seed, number) for number in range(count)]
        noise = self.sampler.noise(keys, self.vae.latent)[:, 0]
        return self.smiles(noise.to(self.device))

    @torch.no_grad()
    def encode(self, smiles: Sequence[str]) -> Tensor:
        """Posterior means float32 N,D of molecules; raises as `guard.graphs.molecule.read`."""
        batch = tensors([read(one) for one in smiles])
        index = torch.arange(len(smiles))
        parts = [
            self.vae.encode(batch.rows(part).to(self.device))[0] for part in index.split(_BATCH)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, self.vae.latent, device=self.device)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.denoiser.null.device

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `config.json` into a folder, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        config = GraphConfig(
            architecture=self.manifest.architecture,
            model_args=dict(self.manifest.model_args),
            pieces=tuple(self.manifest.pieces),
            motifs=tuple(self.manifest.motifs),
            tokens=tuple(self.manifest.tokens),
            sampler=SamplerConfig(
                steps=self.manifest.sampler.steps,
                eta=self.manifest.sampler.eta,
                guidance=self.manifest.sampler.guidance,
                schedule=self.manifest.sampler.schedule,
            ),
        )
        weights = {name: tensor.contiguous().cpu() for name, tensor in self.state_dict().items()}
        safetensors.torch.save_file(weights, folder / WEIGHTS)
        text = json.dumps(config.to_dict(), ensure_ascii=False, indent=1)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def build(manifest: GraphSettings, weights: Mapping[str, Tensor] | None = None) -> GraphModel:
    """A model in evaluation mode, with these weights or freshly initialised ones.

    Raises:
        ManifestRejected: a vocabulary, the grammar, the sampler or a size breaks a rule, or the
            weights have other names, shapes or types than the manifest calls for
            (`manifest_shapes`), or a number in them is not finite (`manifest_not_finite`).
    """
    if weights is None:
        return GraphModel(manifest).eval()
    with torch.device("meta"):
        wanted = {name: tuple(one.shape) for name, one in GraphModel(manifest).state_dict().items()}
    for name in sorted(wanted.keys() ^ weights.keys()):
        fault = "is missing" if name in wanted else "is not part of the model"
        raise ManifestRejected(f"The tensor {name[:80]} {fault}.", code="manifest_shapes")
    for name, tensor in weights.items():
        if tuple(tensor.shape) != wanted[name] or tensor.dtype != torch.float32:
            raise ManifestRejected(
                f"The tensor {name} is {tensor.dtype} of shape {tuple(tensor.shape)}, and the "
                f"manifest calls for float32 of shape {wanted[name]}.",
                code="manifest_shapes",
            )
        if not bool(torch.isfinite(tensor).all()):
            raise ManifestRejected(
                f"The tensor {name} holds a number that is not finite.", code="manifest_not_finite"
            )
    with seeded(0):
        model = GraphModel(manifest)
    model.load_state_dict(dict(weights))
    return model.eval()


def load(folder: Path) -> GraphModel:
    """The model of a folder that `GraphModel.save` wrote; raises as `build`."""
    data = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return build(GraphConfig.from_dict(data), safetensors.torch.load_file(folder / WEIGHTS))


def _distinct(items: Iterable[Item | None]) -> list[Item]:
    """Each object once; what a batch shares is worked out once."""
    return list({id(item): item for item in items if item is not None}.values())


def sizes_of(manifest: GraphSettings) -> dict[str, int]:
    """The sizes of `SIZES`, as `model_args` sets them; raises ManifestRejected."""
    if manifest.architecture != ARCHITECTURE:
        raise ManifestRejected(
            f"config.json: architecture must be {ARCHITECTURE!r}.", code="manifest_bad_architecture"
        )
    sizes = {name: default for name, (default, _) in SIZES.items()}
    for name, value in manifest.model_args.items():
        if name not in SIZES or type(value) is not int or not 1 <= value <= SIZES[name][1]:
            limits = f"an integer in 1..{SIZES[name][1]}" if name in SIZES else "not known"
            raise ManifestRejected(
                f"config.json: model_args: {str(name)[:60]!r} is {limits}.",
                code="manifest_bad_model_args",
            )
        sizes[name] = value
    return sizes
