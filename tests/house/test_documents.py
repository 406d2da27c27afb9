"""Documents that are made from code say what the code says."""

from pathlib import Path

from benchmarks.make_settings_doc import page
from benchmarks.quote import quoted, transcript

ROOT = Path(__file__).parents[2]


def test_the_settings_page_is_the_settings() -> None:
    assert (ROOT / "docs/settings.md").read_text() == page(), "run: python -m benchmarks.make_settings_doc"


def test_the_readme_quotes_the_newest_demo_record() -> None:
    assert quoted() == transcript(), "run: python -m benchmarks.quote"
