"""Alerts, rules and dashboard name metrics that exist, and every alert leads to what to do."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
import yaml

from dicom_node import metrics
from dicom_node.metrics import DECLARATIONS, Kind
from tests.architecture.repository import ROOT
from tools import make_dashboard
from tools.make_metrics_doc import exported

_FOLDER = ROOT / "monitoring"
_RUNBOOK = (ROOT / "docs" / "runbook.md").read_text("utf-8")
_METRIC = re.compile(r"dicom_node_\w+")
_SELECTOR = re.compile(r"(dicom_node_\w+)\{([^}]*)\}")
_RECORDED = re.compile(r"dicom_node:[\w:]+")


def _rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((_FOLDER / name).read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS, RECORDED = _rules("alerts.yml"), _rules("recording.yml")
TESTS = yaml.safe_load((_FOLDER / "alerts_test.yml").read_text("utf-8"))["tests"]
EXPRESSIONS = [rule["expr"] for rule in ALERTS + RECORDED] + make_dashboard.expressions()


def _series() -> dict[str, set[str]]:
    """Every name that the page has, with its labels."""
    found: dict[str, set[str]] = {}
    for each in DECLARATIONS:
        if each.kind is Kind.HISTOGRAM:
            found |= {each.name + end: set(each.labels) for end in ("_sum", "_count")}
            found[each.name + "_bucket"] = {*each.labels, "le"}
        else:
            found[exported(each)] = set(each.labels)
    return found


SERIES = _series()


def test_every_metric_that_is_asked_for_is_declared() -> None:
    asked = {name for expression in EXPRESSIONS for name in _METRIC.findall(expression)}
    assert asked - set(SERIES) == set()
    assert len(asked) > 20


def test_every_metric_that_is_declared_is_looked_at() -> None:
    text = "\n".join(EXPRESSIONS)
    assert [each.name for each in DECLARATIONS if each.name not in text] == []


def test_labels_that_are_asked_for_are_those_of_the_metric() -> None:
    for expression in EXPRESSIONS:
        for name, matchers in _SELECTOR.findall(expression):
            asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
            assert asked <= SERIES[name] | {"job", "instance"}, expression


def test_what_is_recorded_is_used_and_what_is_used_is_recorded() -> None:
    recorded = {rule["record"] for rule in RECORDED}
    used = {name for expression in EXPRESSIONS for name in _RECORDED.findall(expression)}
    assert recorded == used


def test_stages_and_words_of_health_are_those_of_the_code() -> None:
    for stage in re.findall(r'stage=~"([^"]+)"', "\n".join(EXPRESSIONS)):
        assert set(stage.split("|")) <= set(metrics.STAGES)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("DicomNode")
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    said = rule["annotations"]
    assert set(said) == {"summary", "description", "runbook_url"}
    assert said["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
    (section,) = re.findall(rf"^## {rule['alert']}\n(.*?)(?=^## |\Z)", _RUNBOOK, re.M | re.S)
    assert [word for word in ("Means", "At risk", "Look", "Do") if f"**{word}**" not in section] == []


def test_the_runbook_has_a_section_for_alerts_only() -> None:
    sections = re.findall(r"^## (.+)$", _RUNBOOK, re.M)
    assert sorted(sections) == sorted(rule["alert"] for rule in ALERTS)


def test_links_within_the_runbook_lead_to_sections() -> None:
    anchors = {section.lower() for section in re.findall(r"^## (.+)$", _RUNBOOK, re.M)}
    assert set(re.findall(r"\]\(#([^)]+)\)", _RUNBOOK)) <= anchors


def test_metrics_that_the_runbook_names_are_declared() -> None:
    named = set(_METRIC.findall(_RUNBOOK))
    assert named - set(SERIES) == set()


def test_the_runbook_explains_every_word_of_readyz() -> None:
    from dicom_node.service import Service

    words = set(re.findall(r"\"(\w+)\"(?:: |\] = )", _source(Service.checks) + _source(Service._vital)))
    table = _RUNBOOK.partition("| word |")[2].partition("\n\n")[0]
    assert words == set(re.findall(r"`(\w+)`", table.partition("|---|")[2])) - {"storage", "reserve_mb"}


def _source(function: Any) -> str:
    import inspect

    return inspect.getsource(function)


def test_every_alert_is_tried_raised_and_silent() -> None:
    names = [test["name"] for test in TESTS]
    wanted = [f"{rule['alert']} {state}" for rule in ALERTS for state in ("raised", "silent")]
    assert [name for name in wanted if name not in names] == []


def test_series_of_the_tests_are_declared() -> None:
    for test in TESTS:
        for series in test["input_series"]:
            name, _, matchers = series["series"].partition("{")
            if name.startswith("dicom_node_"):
                assert set(re.findall(r"(\w+)=", matchers)) - {"job", "instance"} == SERIES[name], test[
                    "name"
                ]


def test_panels_have_their_own_place_on_the_grid() -> None:
    panels = json.loads(make_dashboard.rendered())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in itertools.combinations([panel["gridPos"] for panel in panels], 2):
        apart_across = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_down = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_across or apart_down, (one, other)
        assert one["x"] + one["w"] <= 24


def test_every_expression_looks_at_the_chosen_node_only() -> None:
    for expression in make_dashboard.expressions():
        names = len(re.findall(r"dicom_node[_:]\w[\w:]*|\bup\b|process_\w+", expression))
        assert expression.count('instance=~"$instance"') == names, expression
