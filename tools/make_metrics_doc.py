"""Writes docs/metrics.md from dicom_node/metrics.py: `make docs`."""

from __future__ import annotations

from collections.abc import Iterable

from dicom_node import metrics
from dicom_node.metrics import Declaration, Kind
from tools.generated import REPOSITORY, table, update

DOCUMENT = REPOSITORY / "docs" / "metrics.md"

_HEAD = """\
# Metrics

<!-- written by `make docs` from dicom_node/metrics.py; do not edit -->

What `/metrics` shows, and how far it can be trusted. [Monitoring](monitoring.md) tells how to collect it
and which alerts come with the node, the [runbook](runbook.md) what to do about them.

Counters and histograms are kept in the ledger, written with the step that they count: they survive `kill -9`
and restarts, add up all processes, and do not fall when history is forgotten. What leaves no row
(associations, refused requests) is written at the next commit, at the latest after five seconds or at a
scrape; a kill may lose what was counted in these seconds, but nothing that was ever shown.

`peer` is what the configuration calls a peer: an AE title or pattern of `routes[].match.calling_ae`, the AE
title of a commitment requester or of a destination that is asked for commitment, else `other`.
`destination` is a name of `destinations`. `modality` is a defined term of PS3.3 C.7.3.1.1.1, `other`, or
`unknown` where nobody read it. So the number of series depends on the configuration, never on what peers
send.

A destination, peer or stage of the configuration is shown from the start, at 0.
"""
_TAIL = """
## From the Python client

`process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_virtual_memory_bytes`,
`process_start_time_seconds`, `process_open_fds` and `process_max_fds` are those of the main process.
Workers have metrics of their own, above.
"""


def rendered() -> str:
    """The whole document."""
    return "\n".join(
        (
            _HEAD,
            "## Counters and histograms\n",
            _table(metrics.COUNTED),
            "\n## State, as the ledger has it\n",
            _table(metrics.KEPT),
            "\n## State, as the living parts of the node have it\n",
            _table(metrics.LIVE),
            _TAIL,
        )
    )


def exported(declaration: Declaration) -> str:
    """The name under which Prometheus keeps it; histograms have `_bucket`, `_sum` and `_count` behind it."""
    return declaration.name + ("_total" if declaration.kind is Kind.COUNTER else "")


def _table(declarations: Iterable[Declaration]) -> str:
    rows = (
        (
            f"`{exported(each)}`",
            str(each.kind),
            ", ".join(f"`{label}`" for label in each.labels),
            each.help + _buckets(each),
        )
        for each in declarations
    )
    return table(("Metric", "Kind", "Labels", "Meaning"), rows)


def _buckets(declaration: Declaration) -> str:
    """The bounds of a histogram."""
    if not declaration.buckets:
        return ""
    return f" Buckets: {', '.join(f'{bound:g}' for bound in declaration.buckets)}."


if __name__ == "__main__":
    update(DOCUMENT, rendered())
