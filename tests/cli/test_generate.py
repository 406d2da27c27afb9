"""`guard generate`, and the commands that meet a text-to-graph model or a pair set."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Answer
from tests.cli.models import saved
from tests.graph_toys import alkanes, model, write_model, write_pairs

Cli = Callable[..., Answer]
#: A policy file that decides about them in seconds.
QUICK = Path(__file__).parent.parent / "quick_graphs.toml"
TEXT = "the molecule is a"


def test_it_answers_from_a_folder_what_the_model_answers(cli: Cli, tmp_path: Path) -> None:
    place = write_model(tmp_path / "up")
    call = ("generate", place, "--text", TEXT, "--samples", 3, "--seed", 5)

    lines, document = cli(*call), json.loads(cli(*call, "--format", "json").out)

    wanted = model().generate([TEXT], 3, 5)[0]
    assert lines.code == 0
    assert document["smiles"] == wanted
    assert len(lines.out.splitlines()) == 3
    assert [one for one in wanted if one] == [
        line for line in lines.out.splitlines() if not line.startswith("(")
    ]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--text", ""], "The text is empty"),
        (["--text", "a", "--samples", "9"], "samples must be an integer in 1..8"),
        (["--text", "a", "--seed", "-1"], "seed must be an integer"),
    ],
)
def test_a_request_out_of_range_is_a_usage_error(
    cli: Cli, tmp_path: Path, options: list[str], what: str
) -> None:
    answer = cli("generate", write_model(tmp_path / "up"), *options)

    assert answer.code == 4
    assert what in answer.err


def test_an_image_model_generates_nothing(cli: Cli, tmp_path: Path) -> None:
    answer = cli("generate", saved(tmp_path / "image"), "--text", "a")

    assert answer.code == 4
    assert "Only text-to-graph models generate" in answer.err


def test_a_pair_set_is_added_listed_and_vets_a_model(cli: Cli, tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "pairs.parquet", *alkanes(40))

    added = json.loads(cli("cleanset", "add", "molecules", path, "--format", "json").out)
    listed = cli("cleanset", "list")
    scan = ("scan", write_model(tmp_path / "up"), "--cleanset", "molecules", "--policy", QUICK)
    scanned = cli(*scan, "-f", "json")

    assert (added["kind"], added["search"], added["holdout"]) == ("text-to-graph", 20, 12)
    assert "pairs" in listed.out
    table = cli(*scan, "--seconds", 1).out  # what it shows of the model needs no detector
    assert "similarity 0." in table
    assert "clean accuracy" not in table
    assert scanned.code in {2, 5}
    assert json.loads(scanned.out)["modality"] == "text-to-graph"


def test_a_bad_row_of_a_pair_set_is_named(cli: Cli, tmp_path: Path) -> None:
    texts, smiles = alkanes(40)
    smiles[7] = "C1CC"

    answer = cli("cleanset", "check", write_pairs(tmp_path / "p.parquet", texts, smiles))

    assert answer.code == 4
    assert "row 7" in answer.err
