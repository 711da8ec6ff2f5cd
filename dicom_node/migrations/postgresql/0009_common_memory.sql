-- What machines of a cluster remember in common. Older programs never look at it; a node alone has it in its folder.
-- the last event that was told to the audit trail; -1 before the first
ALTER TABLE homes ADD COLUMN told_to BIGINT NOT NULL DEFAULT -1;
-- makes the hashes of UIDs in log lines of all machines the same, in hexadecimal digits
ALTER TABLE homes ADD COLUMN log_salt TEXT NOT NULL DEFAULT '';
