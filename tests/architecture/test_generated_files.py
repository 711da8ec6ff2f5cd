"""What is generated from the code is as the code would have it today; `make docs` writes it."""

from __future__ import annotations

from dicom_node import config, log
from tests.architecture.repository import ROOT
from tools import make_conformance, make_dashboard, make_logging_doc, make_metrics_doc, make_settings_doc
from tools.generated import filled


def test_the_settings_are_those_of_the_models() -> None:
    assert make_settings_doc.DOCUMENT.read_text("utf-8") == make_settings_doc.rendered()


def test_every_setting_is_documented_with_a_default() -> None:
    text = make_settings_doc.rendered()
    for section, model in config.Config.model_fields.items():
        assert f"## {section}" in text
        for key in getattr(model.annotation, "model_fields", {}):
            assert f"| `{key}" in text, f"{section}.{key}"


def test_the_conformance_tables_are_those_of_the_contexts() -> None:
    text = make_conformance.DOCUMENT.read_text("utf-8")
    assert text == make_conformance.rendered(text)
    assert "| CT Image Storage | `1.2.840.10008.5.1.4.1.1.2` |" in text


def test_the_lines_of_the_log_are_those_of_the_code() -> None:
    text = make_logging_doc.DOCUMENT.read_text("utf-8")
    assert text == make_logging_doc.rendered(text)
    assert "| `association` | info |" in text


def test_no_line_of_the_log_has_a_field_that_is_not_shown() -> None:
    used = {field for line in make_logging_doc.lines() for field in line.fields}
    assert used - set(log.FIELDS) == set()


def test_no_meaning_is_given_to_a_line_that_is_gone() -> None:
    known = {name for line in make_logging_doc.lines() for name in line.names} | {"note", "library"}
    assert set(make_logging_doc.MEANINGS) - known == set()


def test_a_stale_table_is_noticed() -> None:
    stale = "<!-- generated: a -->\nold\n<!-- end -->"
    assert filled(stale, {"a": "new"}) == "<!-- generated: a -->\nnew\n<!-- end -->"


def test_the_metrics_are_those_of_the_table() -> None:
    text = make_metrics_doc.DOCUMENT.read_text("utf-8")
    assert text == make_metrics_doc.rendered()
    assert "| `dicom_node_store_requests_total` | counter | `peer`, `status` |" in text


def test_the_dashboard_is_that_of_its_table() -> None:
    assert make_dashboard.DOCUMENT.read_text("utf-8") == make_dashboard.rendered()


def test_the_schema_for_editors_is_that_of_the_models() -> None:
    assert (ROOT / "config" / "dicom-node.schema.json").read_text("utf-8") == config.json_schema()
