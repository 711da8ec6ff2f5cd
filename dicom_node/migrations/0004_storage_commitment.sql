-- Commitments asked of destinations: one row per delivery to a destination that is asked. Rows go with their
-- delivery; a later migration that makes `deliveries` anew must put these aside first.
CREATE TABLE commitments (
    delivery_id INTEGER PRIMARY KEY REFERENCES deliveries (id) ON DELETE CASCADE,
    destination TEXT NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('wanted', 'asked', 'committed', 'resending', 'refused')),
    -- since it was last delivered
    wanted_at REAL NOT NULL,
    next_at REAL NOT NULL,
    -- requests that were not taken or not answered, since it was last delivered
    silences INTEGER NOT NULL DEFAULT 0,
    -- answers other than yes, since it was last queued by hand
    refusals INTEGER NOT NULL DEFAULT 0,
    -- the request that is open
    ask_id INTEGER REFERENCES asks (id) ON DELETE SET NULL
);

CREATE INDEX commitments_waiting ON commitments (destination, next_at, delivery_id) WHERE state = 'wanted';
CREATE INDEX commitments_asked ON commitments (ask_id) WHERE ask_id IS NOT NULL;
CREATE INDEX commitments_tally ON commitments (destination, state);
CREATE INDEX commitments_age ON commitments (destination, wanted_at) WHERE state IN ('wanted', 'asked');

-- Requests made of destinations: one row per N-ACTION, each with a Transaction UID of its own.
CREATE TABLE asks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    transaction_uid TEXT NOT NULL UNIQUE,
    destination TEXT NOT NULL,
    asked_at REAL NOT NULL,
    due_at REAL NOT NULL,
    -- asking: the peer has not said yet that it took the request
    state TEXT NOT NULL
        CHECK (state IN ('asking', 'asked', 'answered', 'failed', 'overdue'))
);

CREATE INDEX asks_open ON asks (destination, due_at) WHERE state IN ('asking', 'asked');

-- What each request was about; stays when it is overdue, for a late yes is still a yes.
CREATE TABLE ask_items (
    ask_id INTEGER NOT NULL REFERENCES asks (id) ON DELETE CASCADE,
    delivery_id INTEGER NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE,
    PRIMARY KEY (ask_id, delivery_id)
) WITHOUT ROWID;

-- for the rows that go with a delivery
CREATE INDEX ask_items_delivery ON ask_items (delivery_id);

-- Promises that peers ask of this node: one row per N-ACTION; thousands of rows, not millions.
CREATE TABLE promises (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    transaction_uid TEXT NOT NULL,
    peer TEXT NOT NULL,
    called_ae TEXT NOT NULL,
    asked_at REAL NOT NULL,
    -- when the answer is given, whatever is still under way
    due_at REAL NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('waiting', 'decided', 'reported', 'unreported')),
    next_at REAL NOT NULL,
    -- attempts to report, and those of them that the peer answered with a refusal
    attempts INTEGER NOT NULL DEFAULT 0,
    refusals INTEGER NOT NULL DEFAULT 0,
    -- '', 'committed', 'partly' or 'refused'
    result TEXT NOT NULL DEFAULT '',
    -- how the last attempt ended
    reason TEXT NOT NULL DEFAULT '',
    UNIQUE (peer, transaction_uid)
);

CREATE INDEX promises_waiting ON promises (next_at, id) WHERE state = 'waiting';
CREATE INDEX promises_decided ON promises (next_at, id) WHERE state = 'decided';
CREATE INDEX promises_tally ON promises (result, state);
CREATE INDEX promises_open ON promises (asked_at) WHERE state IN ('waiting', 'decided');

-- The instances of a promise, in the order of the request.
CREATE TABLE promise_items (
    promise_id INTEGER NOT NULL REFERENCES promises (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    sop_class_uid TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    -- null: not decided; 0: committed; else the failure reason (PS3.3 section C.14.1.1)
    answer INTEGER,
    PRIMARY KEY (promise_id, position)
) WITHOUT ROWID;
