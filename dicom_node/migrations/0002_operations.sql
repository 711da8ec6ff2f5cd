-- What an operator's commands, recovery and retention need.

-- bytes of out_blob; 0 where an older version did not note them
ALTER TABLE instances ADD COLUMN out_size INTEGER NOT NULL DEFAULT 0;
CREATE INDEX instances_kept ON instances (id) WHERE state IN ('held', 'quarantined');

-- The same table with one more state; SQLite cannot change a CHECK in place.
CREATE TABLE deliveries_with_dropped (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    instance_id INTEGER NOT NULL REFERENCES instances (id),
    destination TEXT NOT NULL,
    priority INTEGER NOT NULL DEFAULT 0,
    queued_at REAL NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('queued', 'sending', 'delivered', 'dead', 'dropped')),
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
INSERT INTO deliveries_with_dropped SELECT
    id, instance_id, destination, priority, queued_at, state, next_at, attempts, tries, lease_until, token,
    status, reason FROM deliveries;
DROP TABLE deliveries;
ALTER TABLE deliveries_with_dropped RENAME TO deliveries;
CREATE INDEX deliveries_waiting ON deliveries (destination, priority DESC, next_at, id) WHERE state = 'queued';
CREATE INDEX deliveries_leased ON deliveries (destination, lease_until) WHERE state = 'sending';
CREATE INDEX deliveries_dead ON deliveries (destination, id) WHERE state = 'dead';
-- counts, oldest and tries of every destination and state without a look at a row
CREATE INDEX deliveries_tally ON deliveries (destination, state, queued_at, tries);

-- The destinations that an operator has paused.
CREATE TABLE pauses (
    destination TEXT PRIMARY KEY,
    since REAL NOT NULL
) WITHOUT ROWID;

-- What rows that were purged had added to the counters, so that these only ever go up.
CREATE TABLE carried (
    name TEXT NOT NULL,
    destination TEXT NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (name, destination)
) WITHOUT ROWID;

-- One row: this file, and the run of the node that holds it.
CREATE TABLE runs (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    -- objects put before this time were here before the ledger; 0 in a ledger that had rows already
    born_at REAL NOT NULL,
    -- the boot of the machine in which the node was started; empty after a clean stop
    boot TEXT NOT NULL DEFAULT ''
);
-- two seconds less, because the times of files are coarser than this one
INSERT INTO runs (id, born_at) SELECT 1,
    CASE WHEN EXISTS (SELECT 1 FROM instances) THEN 0 ELSE (julianday('now') - 2440587.5) * 86400.0 - 2 END;
