"""Documents that are made from code say what the code says."""

from pathlib import Path

from benchmarks.make_settings_doc import page

ROOT = Path(__file__).parents[2]


def test_the_settings_page_is_the_settings() -> None:
    assert (ROOT / "docs/settings.md").read_text() == page(), "run: python -m benchmarks.make_settings_doc"
