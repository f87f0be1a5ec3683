-- One row per exchange, in the order in which they were loaded.
CREATE TABLE record (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    -- Which counting it belongs to: a reset of the metrics begins another.
    epoch INTEGER NOT NULL,
    operation TEXT NOT NULL,
    outcome TEXT NOT NULL,
    -- 0 paid, 1 notional (a subscription pays), 2 simulated.
    kind INTEGER NOT NULL,
    started_us INTEGER NOT NULL,
    ended_us INTEGER NOT NULL,
    protocol TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    stream INTEGER NOT NULL,
    session TEXT,
    agent TEXT,
    parent_agent TEXT,
    agent_type TEXT,
    project TEXT,
    caller TEXT,
    requested_model TEXT,
    provider TEXT,
    model TEXT,
    status INTEGER,
    stop_reason TEXT,
    upstream_request_id TEXT,
    -- As reported, in JSON: what history is priced again from.
    usage TEXT,
    estimated_output INTEGER,
    usage_unknown INTEGER NOT NULL,
    -- What is billed of it, as numbers that can be summed: absurd ones, which only a broken or hostile upstream reports,
    -- are cut here.
    input INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    output INTEGER NOT NULL,
    web_searches INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,
    -- Billionths of a dollar; NULL if no price is known.
    cost INTEGER,
    price_version TEXT,
    first_byte_us INTEGER,
    first_token_us INTEGER,
    duration_us INTEGER,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    credential TEXT,
    error TEXT,
    attempts TEXT,
    losses TEXT
) STRICT;

CREATE INDEX record_started ON record (started_us);
CREATE INDEX record_session ON record (session, started_us);
CREATE INDEX record_failed ON record (seq) WHERE outcome NOT IN ('success', 'client_disconnected');

-- How far each segment of the journal is loaded.
CREATE TABLE segment (
    name TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    complete INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The countings: the last one is the one that runs.
CREATE TABLE epoch (
    number INTEGER PRIMARY KEY,
    began_us INTEGER NOT NULL
) STRICT;
INSERT INTO epoch (number, began_us) VALUES (1, 0);
