-- What each provider said last about the limits of each credential.
CREATE TABLE limits (
    provider TEXT NOT NULL,
    -- Its last characters; '' if there was none.
    credential TEXT NOT NULL,
    seen_us INTEGER NOT NULL,
    headers TEXT NOT NULL,
    PRIMARY KEY (provider, credential)
) STRICT, WITHOUT ROWID;

-- By the last eight digits of its id: what people copy.
CREATE INDEX record_short ON record (substr(id, 13));
