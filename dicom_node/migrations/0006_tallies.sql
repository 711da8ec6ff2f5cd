-- floor: 6
-- What is counted for metrics. A later migration that makes `instances`, `deliveries` or `commitments` anew makes
-- their triggers anew too. The `;` of a trigger's statements begins a line, see the first file.

-- Counters and histograms, written in the transaction of what they count; they only ever go up.
CREATE TABLE tallies (
    metric TEXT NOT NULL,
    -- a JSON array of the values, in the order in which the metric declares its labels
    labels TEXT NOT NULL,
    -- the upper bound of one bucket of a histogram; '' for a counter, and for the sum of a histogram
    bound TEXT NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (metric, labels, bound)
) WITHOUT ROWID;

INSERT INTO tallies SELECT 'dicom_node_repeated_arrivals', '[]', '',
    (SELECT coalesce(sum(repeats), 0) FROM instances) +
    (SELECT coalesce(sum(value), 0) FROM carried WHERE name = 'repeats');
INSERT INTO tallies SELECT 'dicom_node_conflicting_arrivals', '[]', '',
    (SELECT coalesce(sum(conflict), 0) FROM instances) +
    (SELECT coalesce(sum(value), 0) FROM carried WHERE name = 'conflicts');
INSERT INTO tallies SELECT 'dicom_node_lost_leases', '[]', '',
    (SELECT coalesce(sum(lost), 0) FROM instances) +
    (SELECT coalesce(sum(value), 0) FROM carried WHERE name = 'lost');
INSERT INTO tallies SELECT 'dicom_node_delivery_attempts', json_array(destination), '', sum(tries) FROM (
    SELECT destination, tries FROM deliveries
    UNION ALL SELECT destination, value FROM carried WHERE name = 'tries'
) GROUP BY destination;
INSERT INTO tallies SELECT 'dicom_node_delivery_results', json_array(destination, result), '', count
    FROM attempts;
DROP TABLE carried;
DROP TABLE attempts;
DROP INDEX instances_repeated;
DROP INDEX instances_conflicting;
DROP INDEX instances_lost;
DROP INDEX deliveries_tally;
ALTER TABLE deliveries DROP COLUMN tries;
-- the oldest of every destination and state without a look at a row
CREATE INDEX deliveries_age ON deliveries (destination, state, queued_at);

-- How many rows are in each state, kept by the database itself, so that no step forgets it.
CREATE TABLE instance_counts (
    state TEXT NOT NULL,
    result TEXT NOT NULL,
    reason TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (state, result, reason)
) WITHOUT ROWID;
INSERT INTO instance_counts SELECT state, result, reason, count(*) FROM instances GROUP BY 1, 2, 3;
DROP INDEX instances_tally;
CREATE TRIGGER instances_come AFTER INSERT ON instances BEGIN
    INSERT INTO instance_counts VALUES (new.state, new.result, new.reason, 1)
        ON CONFLICT (state, result, reason) DO UPDATE SET count = count + 1
    ; END;
CREATE TRIGGER instances_move AFTER UPDATE OF state, result, reason ON instances
    WHEN (old.state, old.result, old.reason) <> (new.state, new.result, new.reason) BEGIN
    UPDATE instance_counts SET count = count - 1
        WHERE state = old.state AND result = old.result AND reason = old.reason
    ; INSERT INTO instance_counts VALUES (new.state, new.result, new.reason, 1)
        ON CONFLICT (state, result, reason) DO UPDATE SET count = count + 1
    ; END;
CREATE TRIGGER instances_go AFTER DELETE ON instances BEGIN
    UPDATE instance_counts SET count = count - 1
        WHERE state = old.state AND result = old.result AND reason = old.reason
    ; END;

CREATE TABLE delivery_counts (
    destination TEXT NOT NULL,
    state TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (destination, state)
) WITHOUT ROWID;
INSERT INTO delivery_counts SELECT destination, state, count(*) FROM deliveries GROUP BY 1, 2;
CREATE TRIGGER deliveries_come AFTER INSERT ON deliveries BEGIN
    INSERT INTO delivery_counts VALUES (new.destination, new.state, 1)
        ON CONFLICT (destination, state) DO UPDATE SET count = count + 1
    ; END;
CREATE TRIGGER deliveries_move AFTER UPDATE OF destination, state ON deliveries
    WHEN (old.destination, old.state) <> (new.destination, new.state) BEGIN
    UPDATE delivery_counts SET count = count - 1 WHERE destination = old.destination AND state = old.state
    ; INSERT INTO delivery_counts VALUES (new.destination, new.state, 1)
        ON CONFLICT (destination, state) DO UPDATE SET count = count + 1
    ; END;
CREATE TRIGGER deliveries_go AFTER DELETE ON deliveries BEGIN
    UPDATE delivery_counts SET count = count - 1 WHERE destination = old.destination AND state = old.state
    ; END;

CREATE TABLE commitment_counts (
    destination TEXT NOT NULL,
    state TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (destination, state)
) WITHOUT ROWID;
INSERT INTO commitment_counts SELECT destination, state, count(*) FROM commitments GROUP BY 1, 2;
DROP INDEX commitments_tally;
CREATE TRIGGER commitments_come AFTER INSERT ON commitments BEGIN
    INSERT INTO commitment_counts VALUES (new.destination, new.state, 1)
        ON CONFLICT (destination, state) DO UPDATE SET count = count + 1
    ; END;
CREATE TRIGGER commitments_move AFTER UPDATE OF destination, state ON commitments
    WHEN (old.destination, old.state) <> (new.destination, new.state) BEGIN
    UPDATE commitment_counts SET count = count - 1 WHERE destination = old.destination AND state = old.state
    ; INSERT INTO commitment_counts VALUES (new.destination, new.state, 1)
        ON CONFLICT (destination, state) DO UPDATE SET count = count + 1
    ; END;
CREATE TRIGGER commitments_go AFTER DELETE ON commitments BEGIN
    UPDATE commitment_counts SET count = count - 1 WHERE destination = old.destination AND state = old.state
    ; END;
