-- Targets: services without an agent that are reached through nodes. `settings` is a JSON object. Tags hang on the id, so
-- that they do not pass to a namesake.
CREATE TABLE targets (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL UNIQUE,
    settings TEXT NOT NULL,
    user_name TEXT,
    sealed_password BLOB,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
