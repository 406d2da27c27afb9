"""Records are light: each has a page, a small summary and at most two plots."""

from pathlib import Path

import pytest

from benchmarks import record

MAX_TREE_BYTES = 3_000_000
FOLDERS = sorted(path for path in record.RECORDS.iterdir() if path.is_dir())


def kept(folder: Path) -> list[Path]:
    """Files of a record that git keeps."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name not in record.BULK]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_record_is_a_page_a_summary_and_at_most_two_plots(folder: Path) -> None:
    files = kept(folder)
    plots = [path for path in files if path.suffix == ".png"]

    assert {path.name for path in files} == {
        "README.md",
        record.SUMMARY,
        *(path.name for path in plots),
    }
    assert len(plots) <= record.MAX_PLOTS
    assert (folder / record.SUMMARY).stat().st_size <= record.MAX_SUMMARY_BYTES
    assert all(f"]({path.name})" in (folder / "README.md").read_text() for path in plots)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_summary_says_what_was_measured_on_what(folder: Path) -> None:
    document = record.load(folder)

    assert folder.name.endswith(document["name"])
    assert document["surroundings"]["commit"]
    assert document["result"]


def test_all_records_together_are_small() -> None:
    size = sum(path.stat().st_size for folder in FOLDERS for path in kept(folder))

    assert size <= MAX_TREE_BYTES


def test_git_ignores_the_bulk_of_a_record() -> None:
    ignored = (record.RECORDS.parents[1] / ".gitignore").read_text().splitlines()

    assert {f"benchmarks/records/*/{name}" for name in record.BULK} <= set(ignored)


def test_the_writer_makes_a_record_of_that_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RECORDS", tmp_path)
    folder = record.write("try", {"share": 1 / 3, "rows": [0.1] * 10}, "# A try")
    record.write_bulk(folder, record.ROWS, [{"model": "a"}])
    record.write_plots(folder, ["attacks.png"])

    assert record.load(folder)["result"]["share"] == 0.333333
    assert {path.name for path in kept(folder)} == {"README.md", record.SUMMARY}
    assert "![attacks](attacks.png)" in (folder / "README.md").read_text()


def test_a_large_summary_is_rounded_and_a_larger_one_refused() -> None:
    thirds = [1 / 3] * 6500

    text = record.summary_text({"result": thirds})
    assert len(text) <= record.MAX_SUMMARY_BYTES
    assert "0.3333," in text
    with pytest.raises(ValueError, match="bytes of summary"):
        record.summary_text({"result": thirds * 2})


def test_a_record_takes_no_third_plot_and_no_other_bulk(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most 2 plots"):
        record.write_plots(tmp_path, ["a.png", "b.png", "c.png"])
    with pytest.raises(ValueError, match="which git ignores"):
        record.write_bulk(tmp_path, "more.json", [])
