-- Calls that make several instances: stored before they are made, so that one whose answer was lost is
-- made again as it was. `record` belongs to the provider.
CREATE TABLE launch_batches (
    token      TEXT    PRIMARY KEY,
    account    TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    settled    INTEGER NOT NULL,
    record     TEXT    NOT NULL
) STRICT;
CREATE INDEX launch_batches_account ON launch_batches (account, created_at);
CREATE INDEX launch_batches_settled ON launch_batches (created_at) WHERE settled = 1;
