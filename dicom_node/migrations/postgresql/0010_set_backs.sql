-- A clock that was set back, and how far what waits has followed it. Older programs never look at it.
CREATE TABLE set_backs (
    -- table and column
    part TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    by_s DOUBLE PRECISION NOT NULL,
    later_than DOUBLE PRECISION NOT NULL,
    -- rows are followed in the order of their numbers: the last that was, and the last that is to be
    done BIGINT NOT NULL,
    last BIGINT NOT NULL
);
