"""The table of metrics keeps the rules of Prometheus, and no label is open to the world."""

from __future__ import annotations

import math
import re

import pytest

from dicom_node import metrics
from dicom_node.metrics import COUNTED, DECLARATIONS, PSNR, STORES, Counted, Kind, Reading, Snapshot


def test_names_follow_the_rules_of_prometheus() -> None:
    for declaration in DECLARATIONS:
        assert re.fullmatch(r"dicom_node_[a-z_]+", declaration.name)
        assert declaration.name.endswith(declaration.unit)
        assert not declaration.name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert declaration.help.endswith(".")
        assert all(re.fullmatch(r"[a-z]+", label) for label in declaration.labels)
        assert "le" not in declaration.labels


def test_no_name_is_given_twice() -> None:
    names = [declaration.name for declaration in DECLARATIONS]
    assert len(set(names)) == len(names)


def test_histograms_have_bounds_in_order_and_nothing_else_has() -> None:
    for declaration in DECLARATIONS:
        assert bool(declaration.buckets) is (declaration.kind is Kind.HISTOGRAM)
        assert list(declaration.buckets) == sorted(set(declaration.buckets))
        assert math.inf not in declaration.buckets


def test_what_is_counted_only_goes_up() -> None:
    assert {declaration.kind for declaration in COUNTED} == {Kind.COUNTER, Kind.HISTOGRAM}


@pytest.mark.parametrize(
    ("value", "bound"), [(0.0, "30.0"), (30.0, "30.0"), (30.1, "35.0"), (100.0, "100.0"), (101.0, "inf")]
)
def test_a_value_is_in_the_first_bucket_that_holds_it(value: float, bound: str) -> None:
    assert Reading(PSNR, (), value).bound == bound


def test_a_counter_has_no_buckets() -> None:
    assert Reading(STORES, ("a", "0000"), 5.0).bound == ""


@pytest.mark.parametrize(
    ("found", "label"),
    [
        ("CT", "CT"),
        ("MR ", "MR"),
        ("", "unknown"),
        (" \0", "unknown"),
        ("ct", "other"),
        ("DOE^JANE", "other"),
    ],
)
def test_a_modality_is_one_of_the_standard_or_other(found: str, label: str) -> None:
    assert metrics.modality_label(found) == label


def test_a_total_is_over_all_labels_that_begin_so() -> None:
    rows = (
        Counted(STORES.name, ("a", "0000"), "", 3.0),
        Counted(STORES.name, ("a", "a700"), "", 2.0),
        Counted(STORES.name, ("b", "0000"), "", 1.0),
        Counted(PSNR.name, (), "", 170.0),
        Counted(PSNR.name, (), "90.0", 2.0),
    )
    snapshot = Snapshot((), (), (), 0.0, rows)
    assert snapshot.total(STORES) == 6
    assert snapshot.total(STORES, "a") == 5
    assert snapshot.total(STORES, "a", "0000") == 3
    assert snapshot.total(PSNR) == 2, "values, not their sum"
