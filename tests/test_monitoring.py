"""The dashboard and the alerts: queries are valid, and name only what is really told."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from persona_mcp.server.metric_families import ALL, FAMILIES, PROCESS, Family
from persona_mcp.server.metrics import Metrics
from persona_mcp.server.metrics_page import metrics_page

ROOT = Path(__file__).parents[1]
DASHBOARD = ROOT / "packaging/grafana/dashboards/persona.json"
ALERTS = ROOT / "packaging/prometheus/alerts.yml"
OF_SCRAPES = {"job", "instance"}
"""Labels that Prometheus adds."""
SELECTOR = re.compile(r"([a-z_][a-z0-9_]*)\{")
PARTS = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}
SERIES = {f"{one.name}{part}": one for one in ALL.values() for part in PARTS[one.kind]}
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*"}
ABBREVIATED = re.compile(r"_(ms|s|sec|secs|msec|kb|mb|gb|b|pct)(_|$)")
UNITS_WRONG = re.compile(r"(milliseconds|minutes|hours|kilobytes|megabytes|percent)")


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def plain(query: str) -> str:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query
    return query


def queries() -> Iterator[tuple[str, str]]:
    for panel in panels():
        for target in panel.get("targets", ()):
            yield panel["title"], plain(target["expr"])
    for rule in rules():
        yield rule["alert"], rule["expr"]


def selectors(expr: Any) -> Iterator[Any]:
    """Go through the selectors of a parsed query."""
    if isinstance(expr, promql_parser.VectorSelector):
        yield expr
    elif isinstance(expr, promql_parser.MatrixSelector):
        yield from selectors(expr.vector_selector)
    else:
        for name in ("expr", "lhs", "rhs", "param"):
            inner = getattr(expr, name, None)
            if inner is not None:
                yield from selectors(inner)
        for inner in getattr(expr, "args", None) or ():
            yield from selectors(inner)


def grouped(expr: Any) -> Iterator[str]:
    """Go through the labels that a query groups by."""
    if isinstance(expr, promql_parser.AggregateExpr) and expr.modifier is not None:
        yield from expr.modifier.labels
    for name in ("expr", "lhs", "rhs"):
        inner = getattr(expr, name, None)
        if inner is not None:
            yield from grouped(inner)
    for inner in getattr(expr, "args", None) or ():
        yield from grouped(inner)


def labels_of(family: Family, series: str) -> set[str]:
    ends = {"le"} if series.endswith("_bucket") else set()
    return {*family.labels, *OF_SCRAPES, *ends}


@pytest.mark.parametrize(("where", "query"), list(queries()), ids=lambda value: value[:40])
def test_a_query_is_valid_and_names_only_what_there_is(where: str, query: str) -> None:
    parsed = promql_parser.parse(query)

    found = list(selectors(parsed))
    assert found
    allowed: set[str] = set()
    for selector in found:
        if selector.name == "up":
            allowed |= OF_SCRAPES
            continue
        assert selector.name in SERIES
        its = labels_of(SERIES[selector.name], selector.name)
        assert {matcher.name for matcher in selector.matchers.matchers} <= its
        allowed |= its
    assert set(grouped(parsed)) <= allowed


def test_every_number_of_ours_is_on_the_dashboard() -> None:
    shown = {
        SERIES[selector.name].name
        for panel in panels()
        for target in panel.get("targets", ())
        for selector in selectors(promql_parser.parse(plain(target["expr"])))
    }

    beside = {"persona_upkeep_seconds", "persona_gather_errors"}
    assert {family.name for family in FAMILIES} - shown == beside


def test_panels_have_titles_ids_and_places_of_their_own() -> None:
    ids = [panel["id"] for panel in panels()]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]

    assert len(set(ids)) == len(ids) and len(set(places)) == len(places)
    assert all(panel["title"] for panel in panels())
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels())


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_grave_it_is_what_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "action"}
    assert all(len(text) > 15 for text in rule["annotations"].values())
    told = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    parsed = promql_parser.parse(rule["expr"])
    known = {
        name
        for s in selectors(parsed)
        for name in (OF_SCRAPES if s.name == "up" else labels_of(SERIES[s.name], s.name))
    }
    by = set(grouped(parsed))
    assert told <= (by or known)


def test_prometheus_itself_takes_the_alerts() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool, of Prometheus, is not installed")

    done = subprocess.run(
        [promtool, "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_values_of_labels_in_queries_are_ones_that_are_told() -> None:
    pairs = {
        (matcher.name, value)
        for _, query in queries()
        for selector in selectors(promql_parser.parse(query))
        if selector.name in SERIES
        for matcher in selector.matchers.matchers
        if matcher.name not in OF_SCRAPES | {"code", "status", "part"}
        for value in matcher.value.split("|")
    }

    words = {
        (label, word)
        for family in ALL.values()
        for label, values in family.labels.items()
        for word in re.findall(r"`(\w+)`", values)
    }
    assert pairs <= words


def test_names_and_units_are_as_prometheus_wants_them() -> None:
    for family in FAMILIES:
        name = family.shown
        assert re.fullmatch(r"persona(_[a-z]+)+", name)
        assert not ABBREVIATED.search(name) and not UNITS_WRONG.search(name)
        assert (family.kind == "counter") == name.endswith("_total")
        assert not re.search(r"_(count|sum|bucket|created)$", name)
        assert not re.search(rf"_{family.kind}(_|$)", name)
        assert family.about and not family.about.endswith((".", ":"))
        assert list(family.ends) == sorted(set(family.ends))
        if family.kind == "histogram":
            assert name.endswith("_seconds")
        for label, values in family.labels.items():
            assert re.fullmatch(r"[a-z]+", label) and values
            assert label not in ("le", "quantile", "job", "instance")


def test_what_is_told_is_what_is_listed_and_the_page_lists_all_of_it() -> None:
    told = {
        family.name: (family.type, family.documentation)
        for family in text_string_to_metric_families(Metrics().text())
    }

    listed = {family.name: (family.kind, family.about) for family in FAMILIES}
    ours = {name: found for name, found in told.items() if name.startswith("persona_")}
    assert ours == listed
    assert set(told) - set(ours) <= {family.name for family in PROCESS}
    page = (ROOT / "docs/metrics.md").read_text("utf-8")
    assert page == metrics_page()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.M)) >= {
        family.shown for family in ALL.values()
    }
