-- The schema as SQLite has it after the same version. Flags and times are BIGINT there and here, so that one
-- statement serves both. Times are microseconds since 1970-01-01T00:00:00Z. Records are the core's types as
-- JSON, and TEXT: JSONB refuses \u0000, and nothing looks into them.
--
-- There are no foreign keys: rows of each table live for their own time.

-- The inbox. `body` is NULL once it is pruned; the guid stays longer, so that a redelivery is known. Numbers
-- of deliveries that several coordinators store may become visible out of order: nothing counts on it.
CREATE TABLE deliveries (
    sequence    BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    guid        TEXT   NOT NULL UNIQUE CHECK (guid <> ''),
    event       TEXT   NOT NULL,
    received_at BIGINT NOT NULL,
    processed   BIGINT NOT NULL DEFAULT 0,
    body        BYTEA
);
CREATE INDEX deliveries_pending ON deliveries (sequence) WHERE processed = 0;
CREATE INDEX deliveries_full ON deliveries (received_at) WHERE processed = 1 AND body IS NOT NULL;
CREATE INDEX deliveries_age ON deliveries (received_at) WHERE processed = 1;

-- `settled_at` is when a job or runner ended or, before that, when it was last known to change.
CREATE TABLE jobs (
    id         BIGINT PRIMARY KEY,
    pool       TEXT,
    status     TEXT   NOT NULL,
    settled_at BIGINT NOT NULL,
    forgotten  BIGINT NOT NULL DEFAULT 0,
    record     TEXT   NOT NULL
);
CREATE INDEX jobs_kept ON jobs (id) WHERE forgotten = 0;
CREATE INDEX jobs_forgotten ON jobs (settled_at) WHERE forgotten = 1;

CREATE TABLE runners (
    launch     TEXT   PRIMARY KEY,
    pool       TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    instance   TEXT,
    settled_at BIGINT NOT NULL,
    forgotten  BIGINT NOT NULL DEFAULT 0,
    record     TEXT   NOT NULL
);
CREATE INDEX runners_kept ON runners (launch) WHERE forgotten = 0;
CREATE INDEX runners_forgotten ON runners (settled_at) WHERE forgotten = 1;
CREATE INDEX runners_name ON runners (name);
CREATE INDEX runners_instance ON runners (instance) WHERE instance IS NOT NULL;

CREATE TABLE pools (
    name  TEXT PRIMARY KEY,
    state TEXT NOT NULL
);

-- What is to be done. An effect that replaces one of the same key keeps its place.
CREATE TABLE outbox (
    sequence BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key      TEXT   NOT NULL UNIQUE,
    effect   TEXT   NOT NULL
);

-- Only the leader writes it, so numbers become visible in order.
CREATE TABLE timeline (
    sequence BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       BIGINT NOT NULL,
    what     TEXT   NOT NULL,
    detail   TEXT   NOT NULL,
    pool     TEXT,
    launch   TEXT,
    runner   TEXT,
    job      BIGINT
);
CREATE INDEX timeline_at ON timeline (at);
CREATE INDEX timeline_pool ON timeline (pool) WHERE pool IS NOT NULL;
CREATE INDEX timeline_launch ON timeline (launch) WHERE launch IS NOT NULL;
CREATE INDEX timeline_job ON timeline (job) WHERE job IS NOT NULL;

CREATE TABLE join_tokens (
    hash       BYTEA  PRIMARY KEY CHECK (octet_length(hash) = 32),
    launch     TEXT   NOT NULL,
    pool       TEXT   NOT NULL,
    instance   TEXT   NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT
);
CREATE INDEX join_tokens_launch ON join_tokens (launch);
-- However the program errs: one use for each launch.
CREATE UNIQUE INDEX join_tokens_one_use ON join_tokens (launch) WHERE used_at IS NOT NULL;

CREATE TABLE operator_actions (
    sequence BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       BIGINT NOT NULL,
    operator TEXT   NOT NULL,
    method   TEXT   NOT NULL,
    target   TEXT   NOT NULL,
    reason   TEXT   NOT NULL
);

CREATE TABLE notes (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- Calls that make several instances. `record` belongs to the provider.
CREATE TABLE launch_batches (
    token      TEXT   PRIMARY KEY,
    account    TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    settled    BIGINT NOT NULL,
    record     TEXT   NOT NULL
);
CREATE INDEX launch_batches_account ON launch_batches (account, created_at);
CREATE INDEX launch_batches_settled ON launch_batches (created_at) WHERE settled = 1;

-- Who has enrolled by proof of its identity: each start of an instance once, and each launch once.
CREATE TABLE enrolments (
    account_id  TEXT   NOT NULL,
    region      TEXT   NOT NULL,
    instance    TEXT   NOT NULL,
    launched_at BIGINT NOT NULL,
    launch      TEXT   NOT NULL,
    key_hash    BYTEA  NOT NULL CHECK (octet_length(key_hash) = 32),
    at          BIGINT NOT NULL,
    PRIMARY KEY (account_id, region, instance, launched_at)
);
CREATE UNIQUE INDEX enrolments_launch ON enrolments (launch);
CREATE INDEX enrolments_age ON enrolments (at);

-- Which programs can work with this schema: those that know version `least_known` or a newer one. A migration
-- that the program before it can't live with raises it to its own version.
CREATE TABLE schema_compatibility (
    one         BIGINT PRIMARY KEY CHECK (one = 1),
    least_known BIGINT NOT NULL
);
INSERT INTO schema_compatibility (one, least_known) VALUES (1, 4);

-- The newest batch that was stored: a batch whose answer was lost is stored again without harm.
CREATE TABLE last_batch (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    id  TEXT   NOT NULL
);
INSERT INTO last_batch (one, id) VALUES (1, '');

-- Who leads: nobody yet. Times are the server's. The index makes `fencing` part of a key: a writer's FOR KEY SHARE then
-- stands in the way of a new leader, and not in that of a renewal
-- (https://www.postgresql.org/docs/15/explicit-locking.html#LOCKING-ROWS).
CREATE TABLE leases (
    name       TEXT        PRIMARY KEY,
    holder     TEXT        NOT NULL,
    fencing    BIGINT      NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);
CREATE UNIQUE INDEX leases_fencing ON leases (name, fencing);
INSERT INTO leases (name, holder, fencing, expires_at) VALUES ('leader', '', 0, '-infinity');
