-- Rules for this folder: files are applied in order of their number, each in one transaction; a released file
-- is never edited. PRAGMA user_version holds the number of the last one applied. One statement ends with a
-- semicolon at the end of a line.

-- What arrived: one row per distinct object and route.
CREATE TABLE instances (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sop_class_uid TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    calling_ae TEXT NOT NULL,
    called_ae TEXT NOT NULL,
    route TEXT NOT NULL,
    blob TEXT NOT NULL,
    size INTEGER NOT NULL,
    received_at REAL NOT NULL,
    -- how often the same bytes came again
    repeats INTEGER NOT NULL DEFAULT 0,
    -- 1 if this UID had already come on this route with other content
    conflict INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL
        CHECK (state IN ('received', 'working', 'ready', 'held', 'rejected', 'quarantined')),
    next_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    -- leases that ran out or whose worker died
    lost INTEGER NOT NULL DEFAULT 0,
    -- leases that a restart of the node ended
    interrupted INTEGER NOT NULL DEFAULT 0,
    worker TEXT NOT NULL DEFAULT '',
    lease_until REAL NOT NULL DEFAULT 0,
    token INTEGER NOT NULL DEFAULT 0,
    result TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    out_blob TEXT NOT NULL DEFAULT '',
    out_sop_class_uid TEXT NOT NULL DEFAULT '',
    out_sop_instance_uid TEXT NOT NULL DEFAULT '',
    out_transfer_syntax_uid TEXT NOT NULL DEFAULT '',
    UNIQUE (sop_instance_uid, blob, route)
);

CREATE INDEX instances_waiting ON instances (next_at, id) WHERE state = 'received';
CREATE INDEX instances_leased ON instances (lease_until) WHERE state = 'working';
-- the state comes last: an index that begins with it would be preferred to the partial ones
CREATE INDEX instances_tally ON instances (result, reason, state);
CREATE INDEX instances_age ON instances (received_at) WHERE state IN ('received', 'working');
CREATE INDEX instances_repeated ON instances (repeats) WHERE repeats > 0;
CREATE INDEX instances_conflicting ON instances (conflict) WHERE conflict > 0;
CREATE INDEX instances_lost ON instances (lost) WHERE lost > 0;
CREATE INDEX instances_blob ON instances (blob);
CREATE INDEX instances_out_blob ON instances (out_blob) WHERE out_blob <> '';
CREATE INDEX instances_sent_as ON instances (out_sop_instance_uid) WHERE out_sop_instance_uid <> '';

-- What goes where: one row per instance and destination.
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    instance_id INTEGER NOT NULL REFERENCES instances (id),
    destination TEXT NOT NULL,
    priority INTEGER NOT NULL DEFAULT 0,
    queued_at REAL NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('queued', 'sending', 'delivered', 'dead')),
    next_at REAL NOT NULL,
    -- since it was last queued by hand, what the retry policy counts
    attempts INTEGER NOT NULL DEFAULT 0,
    -- in its whole life
    tries INTEGER NOT NULL DEFAULT 0,
    lease_until REAL NOT NULL DEFAULT 0,
    token INTEGER NOT NULL DEFAULT 0,
    status INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    UNIQUE (instance_id, destination)
);

CREATE INDEX deliveries_waiting ON deliveries (destination, priority DESC, next_at, id) WHERE state = 'queued';
CREATE INDEX deliveries_leased ON deliveries (destination, lease_until) WHERE state = 'sending';
CREATE INDEX deliveries_tally ON deliveries (destination, state, tries);
CREATE INDEX deliveries_age ON deliveries (destination, queued_at) WHERE state IN ('queued', 'sending');

-- What happened, for the record; only ever appended to.
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    instance_id INTEGER NOT NULL REFERENCES instances (id),
    destination TEXT NOT NULL DEFAULT '',
    what TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT ''
);

CREATE INDEX events_of_instance ON events (instance_id, id);
