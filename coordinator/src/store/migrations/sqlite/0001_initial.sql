-- Times are microseconds since 1970-01-01T00:00:00Z. Records are the core's types as JSON.
--
-- There are no foreign keys: rows of each table live for their own time. A timeline entry may outlive
-- its job, a token comes before its runner's record is changed.

-- The inbox. `body` is NULL once it is pruned; the guid stays longer, so that a redelivery is known.
CREATE TABLE deliveries (
    sequence    INTEGER PRIMARY KEY AUTOINCREMENT,
    guid        TEXT    NOT NULL UNIQUE CHECK (guid <> ''),
    event       TEXT    NOT NULL,
    received_at INTEGER NOT NULL,
    processed   INTEGER NOT NULL DEFAULT 0,
    body        BLOB
) STRICT;
CREATE INDEX deliveries_pending ON deliveries (sequence) WHERE processed = 0;
CREATE INDEX deliveries_full ON deliveries (received_at) WHERE processed = 1 AND body IS NOT NULL;
CREATE INDEX deliveries_age ON deliveries (received_at) WHERE processed = 1;

-- `settled_at` is when a job or runner ended or, before that, when it was last known to change.
CREATE TABLE jobs (
    id         INTEGER PRIMARY KEY,
    pool       TEXT,
    status     TEXT    NOT NULL,
    settled_at INTEGER NOT NULL,
    forgotten  INTEGER NOT NULL DEFAULT 0,
    record     TEXT    NOT NULL
) STRICT;
CREATE INDEX jobs_kept ON jobs (id) WHERE forgotten = 0;
CREATE INDEX jobs_forgotten ON jobs (settled_at) WHERE forgotten = 1;

CREATE TABLE runners (
    launch     TEXT    PRIMARY KEY,
    pool       TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    instance   TEXT,
    settled_at INTEGER NOT NULL,
    forgotten  INTEGER NOT NULL DEFAULT 0,
    record     TEXT    NOT NULL
) STRICT;
CREATE INDEX runners_kept ON runners (launch) WHERE forgotten = 0;
CREATE INDEX runners_forgotten ON runners (settled_at) WHERE forgotten = 1;
CREATE INDEX runners_name ON runners (name);
CREATE INDEX runners_instance ON runners (instance) WHERE instance IS NOT NULL;

CREATE TABLE pools (
    name  TEXT PRIMARY KEY,
    state TEXT NOT NULL
) STRICT;

-- What is to be done. An effect that replaces one of the same key keeps its place.
CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    key      TEXT    NOT NULL UNIQUE,
    effect   TEXT    NOT NULL
) STRICT;

-- AUTOINCREMENT: a number is never used again, even after the newest entries are pruned.
CREATE TABLE timeline (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    what     TEXT    NOT NULL,
    detail   TEXT    NOT NULL,
    pool     TEXT,
    launch   TEXT,
    runner   TEXT,
    job      INTEGER
) STRICT;
CREATE INDEX timeline_at ON timeline (at);
CREATE INDEX timeline_pool ON timeline (pool) WHERE pool IS NOT NULL;
CREATE INDEX timeline_launch ON timeline (launch) WHERE launch IS NOT NULL;
CREATE INDEX timeline_job ON timeline (job) WHERE job IS NOT NULL;

CREATE TABLE join_tokens (
    hash       BLOB    PRIMARY KEY CHECK (length(hash) = 32),
    launch     TEXT    NOT NULL,
    pool       TEXT    NOT NULL,
    instance   TEXT    NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER
) STRICT;
CREATE INDEX join_tokens_launch ON join_tokens (launch);
-- However the program errs: one use for each launch.
CREATE UNIQUE INDEX join_tokens_one_use ON join_tokens (launch) WHERE used_at IS NOT NULL;

CREATE TABLE operator_actions (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    operator TEXT    NOT NULL,
    method   TEXT    NOT NULL,
    target   TEXT    NOT NULL,
    reason   TEXT    NOT NULL
) STRICT;

CREATE TABLE notes (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
