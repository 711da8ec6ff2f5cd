-- What readers found, counted by route; no purge takes anything from it.
CREATE TABLE verdicts (
    route TEXT NOT NULL,
    finding TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (route, finding)
) WITHOUT ROWID;
