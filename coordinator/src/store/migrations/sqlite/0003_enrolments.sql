-- Who has enrolled by proof of its identity: each start of an instance once, and each launch once.
CREATE TABLE enrolments (
    account_id  TEXT    NOT NULL,
    region      TEXT    NOT NULL,
    instance    TEXT    NOT NULL,
    launched_at INTEGER NOT NULL,
    launch      TEXT    NOT NULL,
    key_hash    BLOB    NOT NULL CHECK (length(key_hash) = 32),
    at          INTEGER NOT NULL,
    PRIMARY KEY (account_id, region, instance, launched_at)
) STRICT;
-- An instance that a stranger stopped and started again is another start of the same launch.
CREATE UNIQUE INDEX enrolments_launch ON enrolments (launch);
CREATE INDEX enrolments_age ON enrolments (at);
