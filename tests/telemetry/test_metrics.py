"""Metrics are declared once: exporters, documentation and dashboards follow the declaration."""

import json
import re
from pathlib import Path

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from reasonserve.telemetry import dashboards
from reasonserve.telemetry.metric import OTHER, LabelCap
from reasonserve.telemetry.metrics import METRICS, markdown_table
from reasonserve.telemetry.panels import DASHBOARDS
from reasonserve.telemetry.prometheus import PrometheusRecorder

ROOT = Path(__file__).parents[2]
LINES = [
    pytest.param(expression, id=f"{name}: {panel.title} {number}")
    for name, panels in DASHBOARDS.items()
    for panel in panels
    for number, (expression, _) in enumerate(panel.lines)
]


def selectors(expression):
    """Returns every vector selector of a parsed expression."""
    found = []

    def visit(node):
        if isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)
        elif isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(expression, pre_visit=visit)
    return found


def test_names_are_unique_and_follow_prometheus():
    assert len({metric.exposed for metric in METRICS}) == len(METRICS) > 30
    for metric in METRICS:
        assert re.fullmatch(r"reasonserve_[a-z_]+", metric.name)
        assert not metric.name.endswith("_total")
        assert metric.help.endswith(".")
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert list(metric.buckets) == sorted(set(metric.buckets))


def test_the_documents_table_is_the_declaration():
    text = (ROOT / "docs" / "metrics.md").read_text()
    assert markdown_table() in text, "write it anew: python -m reasonserve.telemetry.metrics"


def test_every_metric_is_exposed_as_declared():
    registry = CollectorRegistry()
    recorder = PrometheusRecorder(registry)
    for metric in METRICS:
        labels = ["x"] * len(metric.labels)
        {"counter": recorder.add, "gauge": recorder.set, "histogram": recorder.observe}[metric.kind](metric, 1, *labels)
    families = {family.name: family for family in text_string_to_metric_families(generate_latest(registry).decode())}
    for metric in METRICS:
        family = families[metric.name]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        names = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert names == set(metric.labels)


@given(st.lists(st.text(min_size=1), max_size=60), st.integers(1, 8))
def test_labels_are_bounded_and_stable(names, most):
    cap = LabelCap(most)
    labels = [cap.of(name) for name in names]
    assert len(set(labels) - {OTHER}) <= most
    assert [cap.of(name) for name in names] == labels
    assert all(label in (name, OTHER) for label, name in zip(labels, names, strict=True))


@pytest.mark.parametrize("expression", LINES)
def test_expressions_parse_and_name_declared_metrics(expression):
    parsed = promql_parser.parse(expression.replace("$__rate_interval", "5m").replace("$tenant", ".*"))
    by_name = {metric.exposed: metric for metric in METRICS}
    found = selectors(parsed)
    assert found
    for selector in found:
        metric = by_name[re.sub(r"_bucket$", "", selector.name)]
        assert (metric.kind == "histogram") == selector.name.endswith("_bucket")
        own = {*metric.labels, "replica", "instance", "le"}
        assert {matcher.name for matcher in selector.matchers.matchers} <= own


def test_counters_are_always_rated_and_gauges_never():
    kinds = {metric.exposed: metric.kind for metric in METRICS}
    for param in LINES:
        for name, kind in kinds.items():
            for match in re.finditer(rf"(?<!\w){name}(_bucket)?(?!\w)", param.values[0]):
                rated = param.values[0][: match.start()].endswith("rate(")
                assert rated == (kind != "gauge"), param.values[0]


def test_the_charts_dashboards_are_the_generated_ones():
    folder = ROOT / "helm" / "reasonserve" / "dashboards"
    made = dashboards.files()
    assert {path.name: path.read_text() for path in folder.glob("*.json")} == made, (
        "write them anew: python -m reasonserve.telemetry.dashboards helm/reasonserve/dashboards"
    )
    for text in made.values():
        board = json.loads(text)
        ids = [panel["id"] for panel in board["panels"]]
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
        assert len(set(ids)) == len(set(places)) == len(ids)
        assert all(panel["targets"] and panel["description"] for panel in board["panels"])
