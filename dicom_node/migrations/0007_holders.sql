-- What a ledger needs that several nodes share; a file of one machine has the same columns, and older programs
-- never look at them.

-- who leased it, so that a start takes back its own
ALTER TABLE deliveries ADD COLUMN holder TEXT NOT NULL DEFAULT '';
-- who makes a request
ALTER TABLE asks ADD COLUMN holder TEXT NOT NULL DEFAULT '';
-- the node whose run it is
ALTER TABLE runs ADD COLUMN holder TEXT NOT NULL DEFAULT '';
