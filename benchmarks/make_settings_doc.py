"""Write docs/settings.md from the rows in guard/settings/; a test compares the two."""

from pathlib import Path

from guard.settings import describe

HEAD = """# Settings

Every setting is an environment variable; an unknown `GUARD_*` variable is an error. `DATABASE_URL`
and `REDIS_URL` are read where the `GUARD_` name is not set. Made by `python -m
benchmarks.make_settings_doc`.

| variable | default | unit | what it is |
|---|---|---|---|
"""


def page() -> str:
    """The whole document."""
    rows = [
        f"| `{row.variable}` | {f'`{row.default}`' if row.default else ''} | {row.unit} | "
        f"{row.help} |"
        for row in describe()
    ]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    Path("docs/settings.md").write_text(page())
