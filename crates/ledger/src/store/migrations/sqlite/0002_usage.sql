-- Sums that are kept beside the records, in the same transactions, so that totals over millions of records are quick.
-- What is missing in a record is '' here, because a key has no gaps.

-- Without time: what metrics tell.
CREATE TABLE usage_total (
    kind INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    operation TEXT NOT NULL,
    outcome TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    project TEXT NOT NULL,
    agent_type TEXT NOT NULL,
    requests INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    input INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    output INTEGER NOT NULL,
    web_searches INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    usage_unknown INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    timed INTEGER NOT NULL,
    first_token_us INTEGER NOT NULL,
    first_tokens INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    first_us INTEGER NOT NULL,
    last_us INTEGER NOT NULL,
    PRIMARY KEY (kind, epoch, operation, outcome, provider, model, project, agent_type)
) STRICT, WITHOUT ROWID;

-- By time, in quarters of an hour: the days of every time zone begin with one.
CREATE TABLE usage_time (
    bucket INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    operation TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    project TEXT NOT NULL,
    requests INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    input INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    output INTEGER NOT NULL,
    web_searches INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    usage_unknown INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    timed INTEGER NOT NULL,
    first_token_us INTEGER NOT NULL,
    first_tokens INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    PRIMARY KEY (bucket, kind, epoch, operation, provider, model, project)
) STRICT, WITHOUT ROWID;

-- By session and agent.
CREATE TABLE usage_session (
    session TEXT NOT NULL,
    kind INTEGER NOT NULL,
    agent TEXT NOT NULL,
    parent_agent TEXT NOT NULL,
    agent_type TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    operation TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    project TEXT NOT NULL,
    requests INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    input INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    output INTEGER NOT NULL,
    web_searches INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    usage_unknown INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    timed INTEGER NOT NULL,
    first_token_us INTEGER NOT NULL,
    first_tokens INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    first_us INTEGER NOT NULL,
    last_us INTEGER NOT NULL,
    PRIMARY KEY (session, kind, agent, parent_agent, agent_type, epoch, operation, provider, model, project)
) STRICT, WITHOUT ROWID;

-- What one record adds to the sums.
CREATE VIEW record_usage AS SELECT
    seq, epoch, operation, outcome, kind, started_us,
    started_us / 900000000 AS bucket,
    coalesce(session, '') AS session,
    coalesce(agent, '') AS agent,
    coalesce(parent_agent, '') AS parent_agent,
    coalesce(agent_type, '') AS agent_type,
    coalesce(provider, '') AS provider,
    coalesce(model, requested_model, '') AS model,
    coalesce(project, '') AS project,
    1 AS requests,
    outcome NOT IN ('success', 'client_disconnected') AS failed,
    input, cache_read, cache_write, output, web_searches, estimated, usage_unknown, unpriced,
    max(min(coalesce(cost, 0), 100000000000000), -100000000000000) AS cost,
    min(coalesce(duration_us, 0), 1000000000000) AS duration_us,
    duration_us IS NOT NULL AS timed,
    min(coalesce(first_token_us, 0), 1000000000000) AS first_token_us,
    first_token_us IS NOT NULL AS first_tokens,
    min(bytes_in, 1000000000000) AS bytes_in,
    min(bytes_out, 1000000000000) AS bytes_out
FROM record;

INSERT INTO usage_total SELECT
    kind, epoch, operation, outcome, provider, model, project, agent_type,
    sum(requests), sum(failed), sum(input), sum(cache_read), sum(cache_write), sum(output),
    sum(web_searches), sum(estimated), sum(usage_unknown), sum(unpriced), sum(cost), sum(duration_us),
    sum(timed), sum(first_token_us), sum(first_tokens), sum(bytes_in), sum(bytes_out),
    min(started_us), max(started_us)
FROM record_usage
GROUP BY kind, epoch, operation, outcome, provider, model, project, agent_type;

INSERT INTO usage_time SELECT
    bucket, kind, epoch, operation, provider, model, project,
    sum(requests), sum(failed), sum(input), sum(cache_read), sum(cache_write), sum(output),
    sum(web_searches), sum(estimated), sum(usage_unknown), sum(unpriced), sum(cost), sum(duration_us),
    sum(timed), sum(first_token_us), sum(first_tokens), sum(bytes_in), sum(bytes_out)
FROM record_usage
GROUP BY bucket, kind, epoch, operation, provider, model, project;

INSERT INTO usage_session SELECT
    session, kind, agent, parent_agent, agent_type, epoch, operation, provider, model, project,
    sum(requests), sum(failed), sum(input), sum(cache_read), sum(cache_write), sum(output),
    sum(web_searches), sum(estimated), sum(usage_unknown), sum(unpriced), sum(cost), sum(duration_us),
    sum(timed), sum(first_token_us), sum(first_tokens), sum(bytes_in), sum(bytes_out),
    min(started_us), max(started_us)
FROM record_usage
GROUP BY session, kind, agent, parent_agent, agent_type, epoch, operation, provider, model, project;
