"""The dashboard and the alert rules ask for metrics that the page has, in a language that holds."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from fastapi.testclient import TestClient

from guard.api.app import create_app
from guard.core.tallies import FAMILIES
from guard.flow.context import Guard
from tests.api.conftest import TOKEN
from tests.house.sources import ROOT

FOLDER = ROOT / "docker" / "observability"
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
#: Prometheus makes it itself, one for each target.
ITS_OWN = {"up"}
PROMTOOL = shutil.which("promtool")


def queries() -> list[str]:
    panels = [target["expr"] for one in DASHBOARD["panels"] for target in one.get("targets", [])]
    return [*panels, *(str(rule["expr"]) for rule in RULES)]


def metrics_in(query: str) -> set[str]:
    return {one.name for one in parts(promql_parser.parse(query)) if one.name is not None}


def parts(expression: Any) -> Iterator[promql_parser.VectorSelector]:
    """Every selector of metrics in an expression."""
    kind = type(expression).__name__
    if kind == "VectorSelector":
        yield expression
    elif kind == "MatrixSelector":
        yield expression.vector_selector
    elif kind == "BinaryExpr":
        yield from [*parts(expression.lhs), *parts(expression.rhs)]
    elif kind == "Call":
        for argument in expression.args:
            yield from parts(argument)
    elif kind != "NumberLiteral":
        yield from parts(expression.expr)


@pytest.fixture
def names(guard: Guard) -> set[str]:
    """The names of all series that the metrics page can have."""
    with TestClient(create_app(guard)) as client:
        page = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text
    found = {line.split(" ")[2] for line in page.splitlines() if line.startswith("# TYPE")}
    histograms = {family.name for family in FAMILIES if family.bounds}
    ends = ("_bucket", "_sum", "_count")
    return {*(found - histograms), *(name + end for name in histograms for end in ends)}


@pytest.mark.parametrize("query", queries())
def test_each_query_parses(query: str) -> None:
    assert metrics_in(query)


def test_a_query_that_is_none_does_not_parse() -> None:
    with pytest.raises(ValueError, match="unclosed"):
        promql_parser.parse("sum by (stage (guard_scans)")


@pytest.mark.row(51)
def test_each_metric_of_a_panel_or_rule_is_on_our_page(names: set[str]) -> None:
    asked = {name for query in queries() for name in metrics_in(query)}

    assert asked - ITS_OWN <= names
    assert len(asked) > 25


def test_each_alert_has_a_severity_and_a_sentence() -> None:
    assert len(RULES) == len({rule["alert"] for rule in RULES})
    for rule in RULES:
        assert rule["labels"]["severity"] in {"page", "ticket", "info"}
        assert rule["annotations"]["summary"].endswith(".")


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + dx, place["y"] + dy)
            for dx in range(place["w"])
            for dy in range(place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@pytest.mark.skipif(PROMTOOL is None, reason="promtool (Debian: prometheus) is not installed")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "rules.yaml"),
        ("test", "rules", "rules_test.yaml"),
        ("check", "config", "--syntax-only", "prometheus.yaml"),
    ],
    ids=["rules", "what the rules do", "config"],
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [str(PROMTOOL), *arguments], cwd=FOLDER, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_is_pointed_to_the_rules_and_sends_a_token() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    scrape = config["scrape_configs"][0]

    assert all((FOLDER / name).is_file() for name in config["rule_files"])
    assert scrape["metrics_path"] == "/metrics"
    assert Path(scrape["authorization"]["credentials_file"]).is_absolute()
