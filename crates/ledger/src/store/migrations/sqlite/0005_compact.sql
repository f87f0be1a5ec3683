-- A row has as columns only what is looked for, grouped or summed; the rest is one piece of JSON. Two indexes that cost
-- more than the rest of the row are gone: records are loaded in about the order in which they began, so places in that
-- order (`seq`) are kept for each quarter of an hour and each session, and what lies between them is read.
DROP VIEW record_usage;
DROP INDEX record_started;
DROP INDEX record_session;
DROP INDEX record_failed;
ALTER TABLE record RENAME TO record_4;

CREATE TABLE record (
    -- The order of loading; taken from `sequence`, so that no place is used twice.
    seq INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    -- Which counting it belongs to: a reset of the metrics begins another.
    epoch INTEGER NOT NULL,
    operation TEXT NOT NULL,
    outcome TEXT NOT NULL,
    -- 0 paid, 1 notional (a subscription pays), 2 simulated.
    kind INTEGER NOT NULL,
    started_us INTEGER NOT NULL,
    session TEXT,
    agent TEXT,
    parent_agent TEXT,
    agent_type TEXT,
    project TEXT,
    provider TEXT,
    -- The one that served, or else was asked for.
    model TEXT,
    -- 1 usage unknown, 2 estimated, 4 unpriced, 8 something was assumed for the cost, 16 something is not in the cost.
    flags INTEGER NOT NULL,
    -- What is billed, as numbers that can be summed.
    input INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    output INTEGER NOT NULL,
    web_searches INTEGER NOT NULL,
    -- Billionths of a dollar; NULL if no price is known.
    cost INTEGER,
    first_byte_us INTEGER,
    first_token_us INTEGER,
    duration_us INTEGER,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    -- Everything else, in JSON; also the usage as it was reported, from which history is priced again.
    about BLOB NOT NULL
) STRICT;

INSERT INTO record SELECT
    seq, id, epoch, operation, outcome, kind, started_us, session, agent, parent_agent, agent_type, project, provider,
    coalesce(model, requested_model),
    usage_unknown + 2 * estimated + 4 * unpriced,
    input, cache_read, cache_write, output, web_searches, cost, first_byte_us, first_token_us, duration_us, bytes_in,
    bytes_out,
    CAST(json_object(
        'ended_us', ended_us,
        'protocol', protocol,
        'endpoint', endpoint,
        'stream', json(CASE stream WHEN 0 THEN 'false' ELSE 'true' END),
        'caller', caller,
        'requested_model', requested_model,
        'unserved', json(CASE WHEN model IS NULL THEN 'true' ELSE 'false' END),
        'status', status,
        'stop_reason', stop_reason,
        'upstream_request_id', upstream_request_id,
        'usage', json(usage),
        'estimated_output', estimated_output,
        'price_version', price_version,
        'credential', credential,
        'error', error,
        'attempts', json(coalesce(attempts, '[]')),
        'losses', json(coalesce(losses, '[]'))
    ) AS BLOB)
FROM record_4 ORDER BY seq;

CREATE INDEX record_failed ON record (seq) WHERE outcome NOT IN ('success', 'client_disconnected');

-- The place that the next record takes.
CREATE TABLE sequence (
    next INTEGER NOT NULL
) STRICT;
INSERT INTO sequence (next) SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name IN ('record', 'record_4');
DROP TABLE record_4;

-- Between which places the records lie that began in a quarter of an hour.
CREATE TABLE span (
    bucket INTEGER PRIMARY KEY,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL
) STRICT;
INSERT INTO span SELECT started_us / 900000000, min(seq), max(seq) FROM record GROUP BY 1;

-- Between which places those of a session lie. Of records that went by age nothing needs to be found.
ALTER TABLE usage_session ADD COLUMN first_seq INTEGER NOT NULL DEFAULT 9223372036854775807;
ALTER TABLE usage_session ADD COLUMN last_seq INTEGER NOT NULL DEFAULT 0;
UPDATE usage_session SET (first_seq, last_seq) = (lowest, highest) FROM
    (SELECT coalesce(session, '') AS name, min(seq) AS lowest, max(seq) AS highest FROM record GROUP BY 1)
WHERE name = session;

-- What is to be known about costs.
ALTER TABLE usage_total ADD COLUMN assumed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_total ADD COLUMN incomplete INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_time ADD COLUMN assumed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_time ADD COLUMN incomplete INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_session ADD COLUMN assumed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_session ADD COLUMN incomplete INTEGER NOT NULL DEFAULT 0;

-- What one record adds to the sums.
CREATE VIEW record_usage AS SELECT
    seq, epoch, operation, outcome, kind, started_us,
    started_us / 900000000 AS bucket,
    coalesce(session, '') AS session,
    coalesce(agent, '') AS agent,
    coalesce(parent_agent, '') AS parent_agent,
    coalesce(agent_type, '') AS agent_type,
    coalesce(provider, '') AS provider,
    coalesce(model, '') AS model,
    coalesce(project, '') AS project,
    1 AS requests,
    outcome NOT IN ('success', 'client_disconnected') AS failed,
    input, cache_read, cache_write, output, web_searches,
    (flags & 2) / 2 AS estimated,
    flags & 1 AS usage_unknown,
    (flags & 4) / 4 AS unpriced,
    max(min(coalesce(cost, 0), 100000000000000), -100000000000000) AS cost,
    min(coalesce(duration_us, 0), 1000000000000) AS duration_us,
    duration_us IS NOT NULL AS timed,
    min(coalesce(first_token_us, 0), 1000000000000) AS first_token_us,
    first_token_us IS NOT NULL AS first_tokens,
    min(bytes_in, 1000000000000) AS bytes_in,
    min(bytes_out, 1000000000000) AS bytes_out,
    (flags & 8) / 8 AS assumed,
    (flags & 16) / 16 AS incomplete
FROM record;
