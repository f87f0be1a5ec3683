BEGIN TRANSACTION;
CREATE TABLE epoch (
    number INTEGER PRIMARY KEY,
    began_us INTEGER NOT NULL
) STRICT;
INSERT INTO "epoch" VALUES(1,0);
CREATE TABLE migration (version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum INTEGER NOT NULL, applied_us INTEGER NOT NULL) STRICT;
INSERT INTO "migration" VALUES(1,'records',719444778,1795362313093932);
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
INSERT INTO "record" VALUES(1,X'01A1946843207FED8164BB7B2B9B3E3A',1,'generation','success',0,1793491223328000,1793491227838592,'anthropic','/v1/messages',1,'7b1dcdaf-70c4-4d8e-9d7e-000000000000','agent-535','main','Explore','cco',NULL,'deepseek-flash','deepseek','deepseek-flash',200,'end_turn','req_63033b0ca389c35a','{"tokens":{"input":153,"cache_read":38110,"cache_write":{"5m":2465,"1h":35},"output":488}}',NULL,0,153,38110,2500,488,0,0,0,28587000,'2026-11-20',583978,603978,4510592,58813,3966,'…ABCD',NULL,'[{"provider":"deepseek","model":"deepseek-flash","outcome":"success","status":200,"started_us":150,"duration_us":4510592}]',NULL);
INSERT INTO "record" VALUES(2,X'01A19469EC607363B5C7E924ACF5315B',1,'generation','upstream_error',0,1793491332192000,1793491348460044,'anthropic','/v1/messages',1,'7b1dcdaf-70c4-4d8e-9d7e-000000000000',NULL,NULL,NULL,'cco',NULL,'deepseek-flash','deepseek','deepseek-flash',529,NULL,'req_e8d7da001b0181d6',NULL,NULL,0,0,0,0,0,0,0,0,NULL,NULL,982346,NULL,16268044,373033,21608,'…ABCD','the provider `anthropic` is overloaded','[{"provider":"deepseek","model":"deepseek-flash","outcome":"upstream_error","status":529,"started_us":150,"duration_us":16268044}]',NULL);
CREATE TABLE segment (
    name TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    complete INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "segment" VALUES('0001-1-0',4096,0);
CREATE INDEX record_started ON record (started_us);
CREATE INDEX record_session ON record (session, started_us);
CREATE INDEX record_failed ON record (seq) WHERE outcome NOT IN ('success', 'client_disconnected');
INSERT INTO "sqlite_sequence" VALUES('record',2);
COMMIT;
PRAGMA application_id = 1667460865;
PRAGMA user_version = 1;
