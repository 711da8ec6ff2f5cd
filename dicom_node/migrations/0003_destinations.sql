-- What destinations said, and what was made for them.

-- how often the destination refused this very object; other failures say nothing against it
ALTER TABLE deliveries ADD COLUMN refusals INTEGER NOT NULL DEFAULT 0;
-- the destination that took it instead, if another stood in
ALTER TABLE deliveries ADD COLUMN via TEXT NOT NULL DEFAULT '';

-- The same object in another transfer syntax, so that it is converted once for every destination and attempt.
CREATE TABLE conversions (
    blob TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    out_blob TEXT NOT NULL,
    PRIMARY KEY (blob, transfer_syntax_uid)
) WITHOUT ROWID;

CREATE INDEX conversions_made ON conversions (out_blob);

-- Destinations that are down at this moment.
CREATE TABLE outages (
    destination TEXT PRIMARY KEY,
    since REAL NOT NULL,
    -- 1 when an operator wants it asked at once
    hurry INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- How attempts ended, counted.
CREATE TABLE attempts (
    destination TEXT NOT NULL,
    result TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (destination, result)
) WITHOUT ROWID;
