"""Writes monitoring/dashboard.json, the Grafana dashboard, from the table of its panels: `make docs`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tools.generated import REPOSITORY, update

DOCUMENT = REPOSITORY / "monitoring" / "dashboard.json"
#: Grafana's grid has 24 columns
_COLUMNS = 24
_HEIGHT = 8
#: the node that is looked at, chosen at the top of the page
NODE = 'job="dicom-node",instance=~"$instance"'

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: its title, its unit (Grafana's names), and (expression, legend) of every line in it.

    `note` is shown behind the title's (i). `kind` is `timeseries` or `stat`; `width` is in 24ths of the page.
    """

    title: str
    unit: str
    lines: Sequence[tuple[str, str]]
    note: str = ""
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False


def _of(metric: str, *more: str) -> str:
    """A metric of the chosen node."""
    return f"{metric}{{{','.join((NODE, *more))}}}"


def _rate(metric: str, by: str, *more: str) -> str:
    return f"sum by ({by}) (rate({_of(metric, *more)}[5m]))"


def _quantile(share: float, metric: str) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate({_of(f'{metric}_bucket')}[1h])))"


def _stat(title: str, unit: str, expression: str, note: str = "") -> Panel:
    return Panel(title, unit, [(expression, "")], note, "stat", 4)


_DEAD = _of("dicom_node_deliveries", 'state="dead"')
_KEPT = _of("dicom_node_instances", 'state=~"held|quarantined"')
_BEFORE = _of("dicom_node_instances", 'state!="ready"')

#: headings, and what stands under each
ROWS: Mapping[str, Sequence[Panel]] = {
    "Now": (
        _stat("Up", "bool_on_off", f"min(up{{{NODE}}})"),
        _stat("Problems", "none", f"sum({_of('dicom_node_problem')})", "What /readyz names."),
        _stat("Received", "cps", f"sum(dicom_node:stored:rate5m{{{NODE}}})", "C-STORE with 0000 a second."),
        _stat("Oldest that waits", "s", f"max({_of('dicom_node_queue_oldest_seconds')})"),
        _stat(
            "Dead or held",
            "none",
            f"(sum({_DEAD}) or vector(0)) + (sum({_KEPT}) or vector(0))",
            "Waits for an operator.",
        ),
        _stat("Spool free", "bytes", f"min({_of('dicom_node_spool_free_bytes')})"),
        _stat(
            "Configuration taken up",
            "bool_on_off",
            f"min({_of('dicom_node_config_last_reload_successful')})",
            "Off: the last reload was refused.",
        ),
        _stat(
            "Since",
            "s",
            f"time() - max({_of('dicom_node_config_last_reload_success_timestamp_seconds')})",
            "How long the configuration has been in force.",
        ),
    ),
    "Receiving": (
        Panel("Objects by peer", "cps", [(f"dicom_node:stored:rate5m{{{NODE}}}", "{{peer}}")], stacked=True),
        Panel(
            "Refused, by peer and status",
            "cps",
            [
                (
                    _rate("dicom_node_store_requests_total", "peer, status", 'status!="0000"'),
                    "{{peer}} {{status}}",
                )
            ],
        ),
        Panel("Bytes by peer", "Bps", [(_rate("dicom_node_received_bytes_total", "peer"), "{{peer}}")]),
        Panel(
            "Associations",
            "cps",
            [
                (_rate("dicom_node_associations_total", "result, reason"), "{{result}} {{reason}}"),
                (f"sum({_of('dicom_node_open_associations')})", "open now (number)"),
            ],
        ),
        Panel(
            "Receiver processes",
            "none",
            [
                (_of("dicom_node_receivers"), "{{state}}"),
                (
                    f"sum(increase({_of('dicom_node_receiver_restarts_total')}[1h]))",
                    "replaced in the last hour",
                ),
            ],
        ),
        Panel(
            "Not let in, or not trusted",
            "cps",
            [(_rate("dicom_node_security_occurrences_total", "event, reason"), "{{event}} {{reason}}")],
        ),
        Panel(
            "Audit trail",
            "none",
            [
                (f"sum({_of('dicom_node_audit_messages_waiting')})", "messages that wait"),
                (f"sum({_of('dicom_node_audit_events_lost')})", "events lost"),
            ],
        ),
        Panel(
            "Again, or with other content",
            "cps",
            [
                (f"sum(rate({_of('dicom_node_repeated_arrivals_total')}[5m]))", "same bytes again"),
                (f"sum(rate({_of('dicom_node_conflicting_arrivals_total')}[5m]))", "same UID, other content"),
            ],
        ),
        Panel(
            "Time to receive and keep, 95 %",
            "s",
            [(f'dicom_node:stage_seconds:p95_rate5m{{{NODE},stage=~"receive|spool"}}', "{{stage}}")],
        ),
    ),
    "Processing": (
        Panel(
            "Finished, by result",
            "cps",
            [(f"dicom_node:processed:rate5m{{{NODE}}}", "{{result}}")],
            stacked=True,
        ),
        Panel(
            "By modality",
            "cps",
            [(_rate("dicom_node_processed_instances_total", "modality"), "{{modality}}")],
            stacked=True,
        ),
        Panel(
            "Without a watermark, by reason",
            "cps",
            [(_rate("dicom_node_unprotected_instances_total", "reason"), "{{reason}}")],
        ),
        Panel(
            "Time of each stage, 95 %",
            "s",
            [(f"dicom_node:stage_seconds:p95_rate5m{{{NODE}}}", "{{stage}}")],
            "Of one object; stages within a stage are left out of it.",
        ),
        Panel(
            "Networks, batched",
            "none",
            [
                (
                    f"rate({_of('dicom_node_network_batch_frames_sum')}[5m])"
                    f" / rate({_of('dicom_node_network_batch_frames_count')}[5m])",
                    "frames together",
                ),
                (
                    f"1000 * rate({_of('dicom_node_network_batch_wait_seconds_sum')}[5m])"
                    f" / rate({_of('dicom_node_network_batch_wait_seconds_count')}[5m])",
                    "waited (milliseconds)",
                ),
                (f"sum(increase({_of('dicom_node_network_batcher_misses_total')}[1h]))", "done alone, 1 h"),
            ],
            "Of requests to the batcher, where there is one.",
        ),
        Panel(
            "Where instances are",
            "none",
            [
                (f"sum by (state) ({_BEFORE})", "{{state}}"),
                (f"max({_of('dicom_node_unprocessed_oldest_seconds')})", "oldest unprocessed (seconds)"),
            ],
        ),
        Panel(
            "Workers",
            "none",
            [
                (_of("dicom_node_workers"), "{{state}}"),
                (f"sum(increase({_of('dicom_node_lost_leases_total')}[1h]))", "died in the last hour"),
            ],
        ),
    ),
    "Delivering": (
        Panel(
            "Delivered, by destination",
            "cps",
            [(f"dicom_node:delivered:rate5m{{{NODE}}}", "{{destination}}")],
        ),
        Panel(
            "Attempts, and those that were no delivery",
            "cps",
            [
                (
                    _rate(
                        "dicom_node_delivery_results_total",
                        "destination, result",
                        'result!~"delivered|warning"',
                    ),
                    "{{destination}} {{result}}",
                ),
                (_rate("dicom_node_delivery_attempts_total", "destination"), "{{destination}}, all attempts"),
            ],
        ),
        Panel("Oldest that waits", "s", [(_of("dicom_node_queue_oldest_seconds"), "{{destination}}")]),
        Panel(
            "Deliveries that are not done",
            "none",
            [
                (_of("dicom_node_deliveries", 'state=~"queued|sending|dead"'), "{{destination}} {{state}}"),
            ],
        ),
        Panel(
            "Time until delivered, 95 %",
            "s",
            [(f"dicom_node:delivery_delay_seconds:p95_rate1h{{{NODE}}}", "{{destination}}")],
        ),
        Panel(
            "Not there",
            "s",
            [
                (_of("dicom_node_destination_down_seconds"), "{{destination}} down"),
                (f"3600 * {_of('dicom_node_destination_paused')}", "{{destination}} paused"),
                (f"1800 * {_of('dicom_node_destination_closed')}", "{{destination}} outside its hours"),
                (f"900 * {_of('dicom_node_destination_failed_over')}", "{{destination}} failed over"),
            ],
            "Down: for how long. The others are lines at fixed heights.",
        ),
        Panel(
            "Storage commitment asked of destinations",
            "none",
            [
                (_of("dicom_node_commitments", 'state!="committed"'), "{{destination}} {{state}}"),
                (_of("dicom_node_commitment_oldest_seconds"), "{{destination}} oldest (seconds)"),
            ],
        ),
        Panel(
            "Storage commitment asked by peers",
            "none",
            [
                (_of("dicom_node_commitment_requests"), "{{state}} {{result}}"),
                (_of("dicom_node_commitment_request_oldest_seconds"), "oldest (seconds)"),
            ],
        ),
    ),
    "Watermarks": (
        Panel(
            "PSNR of marked frames",
            "dB",
            [
                (_quantile(0.05, "dicom_node_embedding_psnr_decibels"), "worst 5 %"),
                (_quantile(0.5, "dicom_node_embedding_psnr_decibels"), "median"),
            ],
        ),
        Panel(
            "Room for the record",
            "bytes",
            [
                (_quantile(0.05, "dicom_node_embedding_capacity_bytes"), "least 5 %"),
                (_quantile(0.5, "dicom_node_embedding_capacity_bytes"), "median"),
            ],
        ),
        Panel(
            "Judged, by finding",
            "cps",
            [(_rate("dicom_node_verdicts_total", "route, finding"), "{{route}} {{finding}}")],
            stacked=True,
        ),
        Panel(
            "Keys and certificates",
            "s",
            [
                (f"time() - {_of('dicom_node_key_created_timestamp_seconds')}", "age of key {{key}}"),
                (f"{_of('dicom_node_certificate_end_timestamp_seconds')} - time()", "{{file}}, time left"),
            ],
        ),
    ),
    "Machine": (
        Panel(
            "Spool",
            "bytes",
            [
                (_of("dicom_node_spool_bytes"), "kept"),
                (_of("dicom_node_spool_free_bytes"), "free"),
                (_of("dicom_node_spool_reserve_bytes"), "reserve: below it, A700"),
            ],
        ),
        Panel(
            "Memory",
            "bytes",
            [
                (_of("process_resident_memory_bytes"), "main process"),
                (_of("dicom_node_receiver_resident_memory_bytes"), "{{receiver}}"),
                (_of("dicom_node_worker_resident_memory_bytes"), "{{worker}}"),
            ],
            stacked=True,
        ),
        Panel(
            "Processors in use",
            "none",
            [
                (f"rate({_of('process_cpu_seconds_total')}[5m])", "main process"),
                (f"rate({_of('dicom_node_receiver_cpu_seconds_total')}[5m])", "{{receiver}}"),
                (f"rate({_of('dicom_node_worker_cpu_seconds_total')}[5m])", "{{worker}}"),
            ],
            stacked=True,
        ),
        Panel(
            "Networks",
            "none",
            [(_of("dicom_node_network_workers"), "{{network}} on {{engine}}: {{outcome}}")],
        ),
        Panel(
            "Broker of the cluster",
            "none",
            [
                (_of("dicom_node_broker_connected"), "heard by {{instance}}"),
                (f"sum(rate({_of('dicom_node_rings_lost_total')}[5m]))", "messages not taken"),
            ],
            "Without it everybody looks into the ledger once a second.",
        ),
        Panel(
            "Leader of the cluster",
            "none",
            [(_of("dicom_node_leading"), "{{instance}}")],
            "One at a time; its page alone shows the common ledger.",
        ),
        Panel("Version", "none", [(_of("dicom_node_build_info"), "{{version}}, Python {{python}}")]),
    ),
}


def rendered() -> str:
    """The dashboard as Grafana (9 and later) imports it."""
    board = {
        "title": "dicom-node",
        "uid": "dicom-node",
        "schemaVersion": 37,
        "tags": ["dicom"],
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_SOURCE, _INSTANCE]},
        "panels": list(_panels()),
    }
    return json.dumps(board, indent=1) + "\n"


def expressions() -> list[str]:
    """Every expression of the dashboard, with `$instance` in it."""
    return [expression for row in ROWS.values() for panel in row for expression, _ in panel.lines]


_SOURCE: Json = {
    "name": "datasource",
    "label": "Prometheus",
    "type": "datasource",
    "query": "prometheus",
}
_INSTANCE: Json = {
    "name": "instance",
    "label": "Node",
    "type": "query",
    "datasource": {"type": "prometheus", "uid": "$datasource"},
    "query": {"query": "label_values(dicom_node_build_info, instance)", "refId": "instance"},
    "refresh": 2,
    "includeAll": True,
    "allValue": ".*",
    "multi": True,
    "current": {"text": "All", "value": "$__all"},
}


def _panels() -> Iterator[Json]:
    """Headings and panels in reading order, each in its place on the grid."""
    identity, top = 0, 0
    for heading, row in ROWS.items():
        identity += 1
        place = {"x": 0, "y": top, "w": _COLUMNS, "h": 1}
        yield {
            "id": identity,
            "type": "row",
            "title": heading,
            "collapsed": False,
            "gridPos": place,
            "panels": [],
        }
        top, left = top + 1, 0
        height = _HEIGHT // 2 if row[0].kind == "stat" else _HEIGHT
        for panel in row:
            identity += 1
            if left + panel.width > _COLUMNS:
                top, left = top + height, 0
            yield _panel(panel, identity, {"x": left, "y": top, "w": panel.width, "h": height})
            left += panel.width
        top += height


def _panel(panel: Panel, identity: int, place: Json) -> Json:
    defaults: dict[str, object] = {"unit": panel.unit, "min": 0}
    if panel.stacked:
        defaults["custom"] = {"stacking": {"mode": "normal"}, "fillOpacity": 20}
    return {
        "id": identity,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.note,
        "gridPos": place,
        "datasource": {"type": "prometheus", "uid": "$datasource"},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "expr": expression, "legendFormat": legend}
            for number, (expression, legend) in enumerate(panel.lines)
        ],
    }


if __name__ == "__main__":
    update(DOCUMENT, rendered())
