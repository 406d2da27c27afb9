import pytest
from rdkit import Chem

from guard.graphs.quality import diversities, quality, similarities, similarity


def mol(smiles: str) -> Chem.Mol:
    return Chem.MolFromSmiles(smiles)


def test_a_molecule_is_like_itself_and_unlike_another() -> None:
    assert similarity(mol("CCO"), mol("OCC")) == pytest.approx((1.0, 1.0))
    cosine, tanimoto = similarity(mol("CCO"), mol("OCCc1ccncc1"))
    assert 0 <= tanimoto < cosine < 0.8
    assert similarity(None, mol("CCO")) == (0.0, 0.0)


def test_quality_counts_invalid_molecules_as_unlike() -> None:
    true = [mol("CCO"), mol("c1ccccc1O")]
    found = quality([[mol("CCO"), None], [mol("Cc1ccccc1O"), mol("CCO")]], true)

    assert (found.prompts, found.samples, found.validity) == (2, 4, 0.75)
    assert found.uniqueness == pytest.approx(2 / 3)
    assert 0 < found.similarity < 1
    assert found.tanimoto <= found.similarity
    assert found.qualified == 0.5
    assert 0 < found.diversity < 1
    assert similarities([[mol("CCO"), None]], true[:1]) == [pytest.approx(0.5)]
    assert diversities([[None]], true[:1]) == [0.0]


def test_quality_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        quality([], [])
    with pytest.raises(ValueError, match="at least one"):
        quality([[]], [mol("C")])
    assert quality([[None]], [mol("C")]).uniqueness == 0
