"""What a ledger on a server does for most objects: in one message, which the server commits by itself.

A transaction of ten statements is twelve messages, and each costs both sides more than the rows do. Here are
the four steps that every object takes, each as one statement; what seldom happens (an arrival whose UID is
known, a lease that has ended, a commitment to be asked for) is left alone, and done the long way.

Rules that bind here:
1. A statement sees what was committed before it began. Whoever must see what another did while it waited for
   a lock takes the lock in a statement before it, in the same message.
2. No plan may depend on how large a table was when it was made: rows are found by their numbers, one at a
   time or `ANY` of an array, never by a join that could be turned round.
3. All or nothing: what is to be changed is locked first, in the order of its numbers, and either all of it is
   still as it was or nothing is written.
4. A transaction has a number of its own before it gives one to an event, for the sake of
   `dialects.PostgreSQL.settled_events`; so events are inserted from what was locked or inserted before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dicom_node.jobs import DeliveryState, InstanceState
from dicom_node.ledger.schema import MENDED_BY_ARRIVAL

Rows = list[tuple[Any, ...]]


class Trip:
    """A statement in psycopg's form, and one that takes a lock before it.

    Parameters
    ----------
    text : its first column says whether it wrote what it was to write
    lock : run first, with the same values, in the same message
    """

    def __init__(self, text: str, lock: str = "") -> None:
        self._text, self._lock = text, lock

    def run(self, session: Any, values: Mapping[str, object]) -> Rows:
        """Execute it on a session of the driver that has no transaction; all is committed on return."""
        with session.cursor() as cursor:
            if self._lock:
                with session.pipeline(), session.cursor() as first:
                    first.execute(self._lock, values)
                    cursor.execute(self._text, values)
            else:
                cursor.execute(self._text, values)
            rows: Rows = cursor.fetchall()
        return rows


def as_rows(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as a statement here takes them."""
    return json.dumps(rows, separators=(",", ":"))


#: the time by which leases end, unless a test says what time it is
_CLOCK = """
clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::float8, extract(epoch FROM clock_timestamp())::float8) AS now
)"""
#: in the order of their keys, as all that is counted; in the row of this session, see `dialects`
_COUNTED = """
counted AS (
    INSERT INTO tallies AS t (metric, labels, bound, shard, value)
    SELECT m, l, b, current_setting('dicom_node.shard')::int, v
    FROM json_to_recordset(%(tally)s::json) AS new (m text, l text, b text, v float8)
    WHERE (SELECT done FROM whole)
    ON CONFLICT (metric, labels, bound, shard) DO UPDATE SET value = t.value + excluded.value
)"""

# ---- an arrival ----

_ARRIVED = f"""
WITH {_CLOCK},
made AS (
    INSERT INTO instances (
        sop_class_uid, sop_instance_uid, transfer_syntax_uid, calling_ae, called_ae, route, blob, size,
        received_at, next_at, conflict, state, result, out_blob, out_sop_class_uid, out_sop_instance_uid,
        out_transfer_syntax_uid, out_size
    )
    SELECT %(sop_class_uid)s, %(sop_instance_uid)s, %(transfer_syntax_uid)s, %(calling_ae)s, %(called_ae)s,
        %(route)s, %(blob)s, %(size)s, now, now, 0, %(state)s, %(result)s, %(out_blob)s,
        %(out_sop_class_uid)s, %(out_sop_instance_uid)s, %(out_transfer_syntax_uid)s, %(out_size)s
    FROM clock
    WHERE NOT EXISTS (
        SELECT FROM instances WHERE sop_instance_uid = %(sop_instance_uid)s AND route = %(route)s
    )
    RETURNING id, received_at
),
whole AS (SELECT count(*) = 1 AS done FROM made),
sent AS (
    INSERT INTO deliveries (instance_id, destination, priority, queued_at, state, next_at)
    SELECT made.id, new.destination, %(priority)s, received_at, '{DeliveryState.QUEUED}', received_at
    FROM made, unnest(%(destinations)s::text[]) AS new (destination)
),
noted AS (
    INSERT INTO events (at, instance_id, destination, what, reason)
    SELECT received_at, made.id, new.destination, new.what, ''
    FROM made, json_to_recordset(%(notes)s::json) AS new (destination text, what text)
),{_COUNTED}
SELECT true, id FROM made"""  # noqa: S608 - words of our own

#: of an object whose UID no row has yet; whoever brings the same UID meanwhile waits
ARRIVE = Trip(_ARRIVED, "SELECT pg_advisory_xact_lock(hashtextextended(%(sop_instance_uid)s, 0))")

# ---- receipts, and the next deliveries ----

_LEVEL = "SELECT max(priority) FROM deliveries WHERE state = 'queued' AND destination = %(destination)s"
_TAKEN_AND_LEASED = f"""
WITH RECURSIVE {_CLOCK},
given AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(receipts)s::json)
        AS g (id bigint, token bigint, status integer, reason text, via text)
),
mine AS MATERIALIZED (
    SELECT d.id, g.status, g.reason, g.via
    FROM given g, LATERAL (
        SELECT id FROM deliveries WHERE id = g.id AND token = g.token AND state = 'sending'
        FOR NO KEY UPDATE
    ) d
),
whole AS MATERIALIZED (SELECT (SELECT count(*) FROM mine) = (SELECT count(*) FROM given) AS done),
taken AS (
    UPDATE deliveries d
    SET state = '{DeliveryState.DELIVERED}',
        (status, reason, via) = (SELECT status, reason, via FROM mine WHERE mine.id = d.id)
    WHERE id = ANY (ARRAY(SELECT id FROM mine WHERE (SELECT done FROM whole)))
),
waived AS (
    DELETE FROM commitments
    WHERE delivery_id = ANY (ARRAY(SELECT id FROM mine WHERE (SELECT done FROM whole)))
),
noted AS (
    INSERT INTO events (at, instance_id, destination, what, reason)
    SELECT now, new.* FROM clock, json_to_recordset(%(notes)s::json)
        AS new (instance_id bigint, destination text, what text, reason text)
    WHERE (SELECT done FROM whole)
),{_COUNTED},
look AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM pauses WHERE destination IN (%(destination)s, %(via)s)) AS paused,
        EXISTS (
            SELECT FROM deliveries
            WHERE state = 'sending' AND destination = %(destination)s
                AND lease_until <= (SELECT now FROM clock)
        ) AS expired
),
levels (level) AS (
    {_LEVEL}
    UNION ALL
    SELECT ({_LEVEL} AND priority < level) FROM levels WHERE level IS NOT NULL
),
due AS MATERIALIZED (
    SELECT next.id
    FROM levels, LATERAL (
        SELECT id FROM deliveries
        WHERE state = 'queued' AND destination = %(destination)s AND priority = level
            AND next_at <= (SELECT now FROM clock)
        ORDER BY next_at, id LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
    ) next
    WHERE level IS NOT NULL AND (SELECT done FROM whole) AND NOT (SELECT paused FROM look)
    LIMIT %(limit)s
),
leased AS (
    UPDATE deliveries d
    SET state = '{DeliveryState.SENDING}', holder = %(holder)s, attempts = attempts + 1, token = token + 1,
        lease_until = (SELECT now FROM clock) + %(lease_s)s
    WHERE id = ANY (ARRAY(SELECT id FROM due))
    RETURNING d.*
)
SELECT done, expired, d.id, d.token, d.attempts, d.destination, i.out_blob, i.out_sop_class_uid,
    i.out_sop_instance_uid, i.out_transfer_syntax_uid, d.refusals, d.instance_id, i.received_at, d.queued_at,
    i.out_size
FROM whole, look LEFT JOIN (
    leased d CROSS JOIN LATERAL (SELECT * FROM instances WHERE id = d.instance_id OFFSET 0) i
) ON true
ORDER BY d.priority DESC, d.next_at, d.id"""  # noqa: S608 - words of our own

#: of one destination: what it took, all of it or nothing, and what is next, unless it was not all
TAKE_AND_LEASE = Trip(_TAKEN_AND_LEASED)

# ---- work, and what became of it ----

_LEASED_WORK = f"""
WITH {_CLOCK},
whole AS MATERIALIZED (
    SELECT NOT EXISTS (
        SELECT FROM instances WHERE state = 'working' AND lease_until <= (SELECT now FROM clock)
    ) AS done
),
first AS MATERIALIZED (
    SELECT id, next_at, lost > 0 OR interrupted > 0 AS suspect FROM instances
    WHERE state = 'received' AND next_at <= (SELECT now FROM clock) AND (SELECT done FROM whole)
    ORDER BY next_at, id LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
),
ordered AS (
    SELECT id, row_number() OVER up_to AS place, bool_or(suspect) OVER up_to AS company FROM first
    WINDOW up_to AS (ORDER BY next_at, id)
),
leased AS (
    UPDATE instances i
    SET state = '{InstanceState.WORKING}', worker = %(holder)s, attempts = attempts + 1, token = token + 1,
        lease_until = (SELECT now FROM clock) + %(lease_s)s
    WHERE id = ANY (ARRAY(SELECT id FROM ordered WHERE place = 1 OR NOT company))
    RETURNING i.*
),{_COUNTED}
SELECT done, l.id, l.token, l.attempts, l.sop_class_uid, l.sop_instance_uid, l.transfer_syntax_uid,
    l.calling_ae, l.called_ae, l.route, l.blob, l.received_at, l.size
FROM whole LEFT JOIN leased l ON true ORDER BY l.next_at, l.id"""  # noqa: S608 - words of our own

#: the longest beginning of what waits without a suspect, or the suspect alone; unless a lease has ended
LEASE_WORK = Trip(_LEASED_WORK)

_REVIVED = " OR ".join(f"d.reason = '{reason}'" for reason in MENDED_BY_ARRIVAL)
_FINISHED = f"""
WITH {_CLOCK},
given AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(ended)s::json) AS g (
        id bigint, token bigint, state text, result text, reason text, out_blob text, out_sop_class_uid text,
        out_sop_instance_uid text, out_transfer_syntax_uid text, out_size bigint, priority integer,
        destinations json
    )
),
mine AS MATERIALIZED (
    SELECT g.* FROM given g, LATERAL (
        SELECT id FROM instances WHERE id = g.id AND token = g.token AND state = 'working' FOR NO KEY UPDATE
    ) i
),
whole AS MATERIALIZED (SELECT (SELECT count(*) FROM mine) = (SELECT count(*) FROM given) AS done),
ended AS (
    UPDATE instances i
    SET (
        state, result, reason, out_blob, out_sop_class_uid, out_sop_instance_uid, out_transfer_syntax_uid,
        out_size
    ) = (
        SELECT state, result, reason, out_blob, out_sop_class_uid, out_sop_instance_uid,
            out_transfer_syntax_uid, out_size
        FROM mine WHERE mine.id = i.id
    )
    WHERE id = ANY (ARRAY(SELECT id FROM mine WHERE (SELECT done FROM whole)))
),
queued AS (
    INSERT INTO deliveries AS d (instance_id, destination, priority, queued_at, state, next_at)
    SELECT m.id, new.destination, m.priority, now, '{DeliveryState.QUEUED}', now
    FROM clock, mine m, json_array_elements_text(m.destinations) AS new (destination)
    WHERE (SELECT done FROM whole)
    ON CONFLICT (instance_id, destination) DO UPDATE
    SET state = excluded.state, next_at = excluded.next_at, attempts = 0, refusals = 0, reason = ''
    WHERE d.state = 'dead' AND ({_REVIVED})
    RETURNING instance_id, destination
),
noted AS (
    INSERT INTO events (at, instance_id, destination, what, reason)
    SELECT now, id, '', state, reason FROM clock, mine WHERE (SELECT done FROM whole)
    UNION ALL
    SELECT now, instance_id, destination, '{DeliveryState.QUEUED}', '' FROM clock, queued
),{_COUNTED}
SELECT done FROM whole"""  # noqa: S608 - words of our own

#: what became of some instances, unless one is no longer leased, and their deliveries
FINISH = Trip(_FINISHED)
