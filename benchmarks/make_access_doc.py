"""Write docs/access.md, who may do what, from `access_table.toml`; tests try each cell of it.

python -m benchmarks.make_access_doc
"""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from guard.core.roles import Role

TABLE = Path(__file__).with_name("access_table.toml")
DOCUMENT = Path(__file__).parents[1] / "docs" / "access.md"
HEAD = """# Who may do what

Made by `python -m benchmarks.make_access_doc` from `benchmarks/access_table.toml`; change nothing
by hand. `tests/api/test_access_matrix.py` and `tests/cli/test_access_matrix.py` try every role at
every act, command and route of it. A person with several roles, by several tokens or by their
groups, does each act with the one that may. Without a token nothing is changed once there is a
principal; how to give roles stands in [operating](operating.md#who-may-act). Every act is in the
ledger's chain with its principal.
"""


def acts(file: Path = TABLE) -> dict[str, dict[str, Any]]:
    """What is known of each act by its name: what, roles, note, commands, routes."""
    return tomllib.loads(file.read_text())


def page() -> str:
    return "\n".join([HEAD, *_lines(), ""])


def _lines() -> Iterator[str]:
    yield "| act | " + " | ".join(Role) + " | command | route |"
    yield "|---|" + "---|" * (len(Role) + 2)
    for name, row in acts().items():
        cells = ["●" if role in row["roles"] else "" for role in Role]
        what = row["what"] + (f" ({row['note']})" if "note" in row else "")
        commands = ", ".join(f"`guard {one}`" for one in row.get("commands", ()))
        routes = ", ".join(f"`{one}`" for one in row.get("routes", ()))
        yield f"| `{name}`: {what} | " + " | ".join([*cells, commands, routes]) + " |"


if __name__ == "__main__":
    DOCUMENT.write_text(page())
    print(DOCUMENT)
