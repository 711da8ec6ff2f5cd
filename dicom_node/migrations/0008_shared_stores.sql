-- A store of objects that several machines share: who may not remove what, whose store it is, and where the rows
-- of a node went that became part of a cluster.
CREATE TABLE blob_guards (
    blob TEXT NOT NULL PRIMARY KEY,
    -- 1: somebody removes it; 0: somebody relies on it, and its row may not be written yet
    doomed INTEGER NOT NULL,
    until DOUBLE PRECISION NOT NULL
);
CREATE INDEX blob_guards_until ON blob_guards (until);

CREATE TABLE homes (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    store TEXT NOT NULL,
    moved_to TEXT NOT NULL
);
INSERT INTO homes VALUES (1, '', '');
