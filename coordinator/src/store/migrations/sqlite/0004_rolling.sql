-- Which programs can work with this schema: those that know version `least_known` or a newer one. A migration
-- that the program before it can't live with raises it to its own version.
CREATE TABLE schema_compatibility (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    least_known INTEGER NOT NULL
) STRICT;
INSERT INTO schema_compatibility (one, least_known) VALUES (1, 4);

-- The newest batch that was stored: a batch whose answer was lost is stored again without harm.
CREATE TABLE last_batch (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id  TEXT    NOT NULL
) STRICT;
INSERT INTO last_batch (one, id) VALUES (1, '');
