"""How well generated molecules answer their prompts: the measures of 3M-Diffusion and BadGraph."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator, rdMolDescriptors

QUALIFIED = 0.5  # MACCS cosine to the true molecule, at least
NOVEL = 0.8  # below
_MORGAN = rdFingerprintGenerator.GetMorganGenerator(radius=3, fpSize=2048)


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Shares and means in 0..1 over all prompts.

    `similarity` is the mean MACCS cosine to the true molecule (an invalid one counts 0), `tanimoto`
    the same with Tanimoto's coefficient, `qualified` the share with a cosine of at least
    `QUALIFIED`, `novelty` the share of those below `NOVEL`, `diversity` the mean distance (1 minus
    Tanimoto of Morgan fingerprints) between two molecules of a prompt, the true one among them,
    `uniqueness` the share of distinct molecules among valid ones, `validity` that of valid ones.
    """

    prompts: int
    samples: int
    validity: float
    similarity: float
    tanimoto: float
    qualified: float
    novelty: float
    diversity: float
    uniqueness: float


def maccs(mol: Chem.Mol) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """The MACCS keys of a molecule, bool 167."""
    keys = np.zeros(167, dtype=np.int8)
    DataStructs.ConvertToNumpyArray(rdMolDescriptors.GetMACCSKeysFingerprint(mol), keys)
    return keys.astype(bool)


def similarity(one: Chem.Mol | None, other: Chem.Mol) -> tuple[float, float]:
    """Cosine and Tanimoto similarity of the MACCS keys, in 0..1; 0 for None."""
    if one is None:
        return 0.0, 0.0
    first, second = maccs(one), maccs(other)
    both = float((first & second).sum())
    sizes = float(first.sum()), float(second.sum())
    cosine = both / (sizes[0] * sizes[1]) ** 0.5 if min(sizes) else 0.0
    union = sum(sizes) - both
    return cosine, both / union if union else 0.0


def similarities(
    generated: Sequence[Sequence[Chem.Mol | None]], true: Sequence[Chem.Mol]
) -> list[float]:
    """The mean MACCS cosine of each prompt's molecules to the true one."""
    return [
        fmean(similarity(one, truth)[0] for one in own)
        for own, truth in zip(generated, true, strict=True)
    ]


def quality(generated: Sequence[Sequence[Chem.Mol | None]], true: Sequence[Chem.Mol]) -> Quality:
    """Measure the molecules of each prompt against its true one.

    Raises:
        ValueError: no prompts, or a prompt without molecules.
    """
    if not true or not all(generated):
        raise ValueError("Quality needs at least one prompt and one molecule for each.")
    pairs = [
        similarity(one, truth) for own, truth in zip(generated, true, strict=True) for one in own
    ]
    valid = [one for own in generated for one in own if one is not None]
    fit = [cosine for cosine, _ in pairs if cosine >= QUALIFIED]
    spelt = {Chem.MolToSmiles(one) for one in valid}
    return Quality(
        prompts=len(true),
        samples=len(pairs),
        validity=len(valid) / len(pairs),
        similarity=fmean(cosine for cosine, _ in pairs),
        tanimoto=fmean(share for _, share in pairs),
        qualified=len(fit) / len(pairs),
        novelty=sum(cosine < NOVEL for cosine in fit) / len(fit) if fit else 0.0,
        diversity=fmean(diversities(generated, true)),
        uniqueness=len(spelt) / len(valid) if valid else 0.0,
    )


def diversities(
    generated: Sequence[Sequence[Chem.Mol | None]], true: Sequence[Chem.Mol]
) -> list[float]:
    """The mean distance between two molecules of each prompt, the true one among them."""
    found = []
    for own, truth in zip(generated, true, strict=True):
        prints = [_MORGAN.GetFingerprint(one) for one in (*own, truth) if one is not None]
        distances = [
            1 - share
            for place in range(1, len(prints))
            for share in DataStructs.BulkTanimotoSimilarity(prints[place], prints[:place])
        ]
        found.append(fmean(distances) if distances else 0.0)
    return found
