-- floor: 5
-- The oldest schema whose programs can work on this file. A program that is older than the file looks here before
-- it refuses, so that an upgrade can be taken back without forgetting what arrived since.
CREATE TABLE floor (schema INTEGER NOT NULL);
INSERT INTO floor (schema) VALUES (5);
