"""The tables of the ledger, the conditions its indexes serve, and the migrations that make them.

A table here declares what `migrations/*.sql` has made; a test holds the two against each other.
"""

from __future__ import annotations

import enum
import re
from typing import Any

import sqlalchemy as sa

from dicom_node.commitment import CommitmentState, PromiseState
from dicom_node.errors import LedgerError
from dicom_node.jobs import NOT_SENDABLE, DeliveryState, InstanceState
from dicom_node.ledger import dialects

Row = sa.Row[*tuple[Any, ...]]
_FLOOR = re.compile(r"^-- floor: (\d+)$", re.MULTILINE)
METADATA = sa.MetaData()
#: numbers and sizes outgrow 32 bits, which matters where a statement says how wide a parameter is
_Big = sa.BigInteger

instances = sa.Table(
    "instances",
    METADATA,
    sa.Column("id", _Big, primary_key=True),
    sa.Column("sop_class_uid", sa.Text),
    sa.Column("sop_instance_uid", sa.Text),
    sa.Column("transfer_syntax_uid", sa.Text),
    sa.Column("calling_ae", sa.Text),
    sa.Column("called_ae", sa.Text),
    sa.Column("route", sa.Text),
    sa.Column("blob", sa.Text),
    sa.Column("size", _Big),
    sa.Column("received_at", sa.Float),
    sa.Column("repeats", sa.Integer),
    sa.Column("conflict", sa.Integer),
    sa.Column("state", sa.Text),
    sa.Column("next_at", sa.Float),
    sa.Column("attempts", sa.Integer),
    sa.Column("lost", sa.Integer),
    sa.Column("interrupted", sa.Integer),
    sa.Column("worker", sa.Text),
    sa.Column("lease_until", sa.Float),
    sa.Column("token", sa.Integer),
    sa.Column("result", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("out_blob", sa.Text),
    sa.Column("out_sop_class_uid", sa.Text),
    sa.Column("out_sop_instance_uid", sa.Text),
    sa.Column("out_transfer_syntax_uid", sa.Text),
    sa.Column("out_size", _Big),
)

deliveries = sa.Table(
    "deliveries",
    METADATA,
    sa.Column("id", _Big, primary_key=True),
    sa.Column("instance_id", _Big),
    sa.Column("destination", sa.Text),
    sa.Column("priority", sa.Integer),
    sa.Column("queued_at", sa.Float),
    sa.Column("state", sa.Text),
    sa.Column("next_at", sa.Float),
    sa.Column("attempts", sa.Integer),
    sa.Column("lease_until", sa.Float),
    sa.Column("token", sa.Integer),
    sa.Column("status", sa.Integer),
    sa.Column("reason", sa.Text),
    sa.Column("refusals", sa.Integer),
    sa.Column("via", sa.Text),
    sa.Column("holder", sa.Text),
)

conversions = sa.Table(
    "conversions",
    METADATA,
    sa.Column("blob", sa.Text, primary_key=True),
    sa.Column("transfer_syntax_uid", sa.Text, primary_key=True),
    sa.Column("out_blob", sa.Text),
)

outages = sa.Table(
    "outages",
    METADATA,
    sa.Column("destination", sa.Text, primary_key=True),
    sa.Column("since", sa.Float),
    sa.Column("hurry", sa.Integer),
)

events = sa.Table(
    "events",
    METADATA,
    sa.Column("id", _Big, primary_key=True),
    sa.Column("at", sa.Float),
    sa.Column("instance_id", _Big),
    sa.Column("destination", sa.Text),
    sa.Column("what", sa.Text),
    sa.Column("reason", sa.Text),
)

pauses = sa.Table("pauses", METADATA, sa.Column("destination", sa.Text), sa.Column("since", sa.Float))

tallies = sa.Table(
    "tallies",
    METADATA,
    sa.Column("metric", sa.Text, primary_key=True),
    sa.Column("labels", sa.Text, primary_key=True),
    sa.Column("bound", sa.Text, primary_key=True),
    sa.Column("value", sa.Float),
)

# kept by triggers, see migrations/0006_tallies.sql
instance_counts = sa.Table(
    "instance_counts",
    METADATA,
    sa.Column("state", sa.Text, primary_key=True),
    sa.Column("result", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, primary_key=True),
    sa.Column("count", sa.Integer),
)

delivery_counts = sa.Table(
    "delivery_counts",
    METADATA,
    sa.Column("destination", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, primary_key=True),
    sa.Column("count", sa.Integer),
)

commitment_counts = sa.Table(
    "commitment_counts",
    METADATA,
    sa.Column("destination", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, primary_key=True),
    sa.Column("count", sa.Integer),
)

runs = sa.Table(
    "runs",
    METADATA,
    sa.Column("id", _Big, primary_key=True),
    sa.Column("born_at", sa.Float),
    sa.Column("boot", sa.Text),
    sa.Column("holder", sa.Text),
)
commitments = sa.Table(
    "commitments",
    METADATA,
    sa.Column("delivery_id", _Big, primary_key=True),
    sa.Column("destination", sa.Text),
    sa.Column("state", sa.Text),
    sa.Column("wanted_at", sa.Float),
    sa.Column("next_at", sa.Float),
    sa.Column("silences", sa.Integer),
    sa.Column("refusals", sa.Integer),
    sa.Column("ask_id", _Big),
)

asks = sa.Table(
    "asks",
    METADATA,
    sa.Column("id", _Big, primary_key=True),
    sa.Column("transaction_uid", sa.Text),
    sa.Column("destination", sa.Text),
    sa.Column("asked_at", sa.Float),
    sa.Column("due_at", sa.Float),
    sa.Column("state", sa.Text),
    sa.Column("holder", sa.Text),
)

ask_items = sa.Table(
    "ask_items",
    METADATA,
    sa.Column("ask_id", _Big, primary_key=True),
    sa.Column("delivery_id", _Big, primary_key=True),
)

promises = sa.Table(
    "promises",
    METADATA,
    sa.Column("id", _Big, primary_key=True),
    sa.Column("transaction_uid", sa.Text),
    sa.Column("peer", sa.Text),
    sa.Column("called_ae", sa.Text),
    sa.Column("asked_at", sa.Float),
    sa.Column("due_at", sa.Float),
    sa.Column("state", sa.Text),
    sa.Column("next_at", sa.Float),
    sa.Column("attempts", sa.Integer),
    sa.Column("refusals", sa.Integer),
    sa.Column("result", sa.Text),
    sa.Column("reason", sa.Text),
)

promise_items = sa.Table(
    "promise_items",
    METADATA,
    sa.Column("promise_id", _Big, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("sop_class_uid", sa.Text),
    sa.Column("sop_instance_uid", sa.Text),
    sa.Column("answer", sa.Integer),
)

blob_guards = sa.Table(
    "blob_guards",
    METADATA,
    sa.Column("blob", sa.Text, primary_key=True),
    sa.Column("doomed", sa.Integer),
    sa.Column("until", sa.Float),
)

homes = sa.Table(
    "homes",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("store", sa.Text),
    sa.Column("moved_to", sa.Text),
    sa.Column("told_to", _Big),
    sa.Column("log_salt", sa.Text),
)

set_backs = sa.Table(
    "set_backs",
    METADATA,
    sa.Column("part", sa.Text, primary_key=True),
    sa.Column("by_s", sa.Float),
    sa.Column("later_than", sa.Float),
    sa.Column("done", _Big),
    sa.Column("last", _Big),
)

floor = sa.Table("floor", METADATA, sa.Column("schema", sa.Integer))

_i, _d = instances.c, deliveries.c


def in_state(table: sa.Table, *states: enum.StrEnum) -> sa.ColumnElement[bool]:
    """`state = 'x'` with literals: a bound parameter would keep a partial index from serving."""
    words: list[sa.ColumnElement[str]] = [sa.literal_column(f"'{state}'") for state in states]
    return table.c.state == words[0] if len(words) == 1 else table.c.state.in_(words)


RECEIVED = in_state(instances, InstanceState.RECEIVED)
WORKING = in_state(instances, InstanceState.WORKING)
HELD = in_state(instances, InstanceState.HELD)
#: waits for an operator
KEPT = in_state(instances, InstanceState.HELD, InstanceState.QUARANTINED)
UNPROCESSED = in_state(instances, InstanceState.RECEIVED, InstanceState.WORKING)
#: sent, and not committed to by a destination that is asked
UNCOMMITTED = in_state(commitments, CommitmentState.WANTED, CommitmentState.ASKED)
#: requests of peers whose answer is still to come
UNREPORTED = in_state(promises, PromiseState.WAITING, PromiseState.DECIDED)
#: its own bytes are read no more
FINISHED = in_state(instances, InstanceState.READY, InstanceState.REJECTED)
QUEUED = in_state(deliveries, DeliveryState.QUEUED)
SENDING = in_state(deliveries, DeliveryState.SENDING)
DEAD = in_state(deliveries, DeliveryState.DEAD)
#: why a start gave up what it found no bytes for, or not those of the name
BYTES_LOST = ("bytes-missing", "bytes-changed")
#: why a delivery may be dead although nothing is wrong with it but its bytes: the same object again mends it
MENDED_BY_ARRIVAL = (*BYTES_LOST, NOT_SENDABLE)
#: may still be sent
UNSETTLED = sa.not_(in_state(deliveries, DeliveryState.DELIVERED, DeliveryState.DROPPED))


def require_present(connection: sa.Connection, scripts: list[tuple[int, str]]) -> None:
    """Raise LedgerError unless this version can work on the file as it is."""
    version = dialects.of(connection).version(connection)
    if version != scripts[-1][0] and not _is_newer_and_usable(connection, scripts[-1][0]):
        raise LedgerError(
            f"the ledger has schema {version}, this version knows {scripts[-1][0]}; start the node of this "
            "version once, or use the command of the node's own version"
        )


def migrate(connection: sa.Connection, scripts: list[tuple[int, str]]) -> None:
    """Apply what the file has not seen yet, inside the caller's transaction.

    A newer file is used as it is if its migrations say that this version may (`-- floor:`): whoever goes back
    to the version before an upgrade goes on with the same ledger and forgets nothing.
    """
    dialect = dialects.of(connection)
    dialect.lock_migration(connection)
    version, newest = dialect.version(connection), scripts[-1][0]
    if version > newest and not _is_newer_and_usable(connection, newest):
        raise LedgerError(
            f"the ledger has schema {version}, this version knows {newest}; install the newer one"
        )
    for number, script in scripts:
        if number > version:
            dialect.apply(connection, number, _statements(script))
    if version < newest and _has_floor(connection):
        connection.execute(sa.update(floor).values(schema=lowest(scripts)))


def lowest(scripts: list[tuple[int, str]]) -> int:
    """The oldest schema whose programs can work on a file that all of these have been applied to.

    A migration that only adds what older programs never look at says nothing; any other begins with
    `-- floor: N`, its own number as a rule.
    """
    return max([int(said) for _, script in scripts for said in _FLOOR.findall(script)], default=1)


def _has_floor(connection: sa.Connection) -> bool:
    return sa.inspect(connection).has_table(floor.name)


def _is_newer_and_usable(connection: sa.Connection, newest: int) -> bool:
    if dialects.of(connection).version(connection) <= newest or not _has_floor(connection):
        return False
    said = connection.execute(sa.select(floor.c.schema)).scalar_one_or_none()
    return said is not None and said <= newest


def _statements(script: str) -> list[str]:
    code = "\n".join(line for line in script.splitlines() if not line.lstrip().startswith("--"))
    return [statement for part in re.split(r";\s*$", code, flags=re.MULTILINE) if (statement := part.strip())]
