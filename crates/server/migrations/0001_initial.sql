-- Everything the control plane remembers. Instants are integer microseconds since 1970 UTC, identifiers and JSON are
-- text, sealed secrets are bytes. Only what PostgreSQL also understands, but for the first line: it marks the file as
-- ours ("MJGI"), so that no other program's database is ever taken for one.
PRAGMA application_id = 1296713545;

CREATE TABLE settings (
    name TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
);

CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL UNIQUE,
    path TEXT NOT NULL,
    created BIGINT NOT NULL,
    boundary_arn TEXT REFERENCES policies (arn)
);

CREATE TABLE user_groups (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL UNIQUE,
    path TEXT NOT NULL,
    created BIGINT NOT NULL
);

CREATE TABLE memberships (
    user_id TEXT NOT NULL REFERENCES users (id),
    group_id TEXT NOT NULL REFERENCES user_groups (id),
    PRIMARY KEY (user_id, group_id)
);
CREATE INDEX memberships_by_group ON memberships (group_id);

-- Managed policies: the customers' own and the built-in ones (builtin = 1, written by the program at each start).
CREATE TABLE policies (
    id TEXT NOT NULL PRIMARY KEY,
    arn TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    path TEXT NOT NULL,
    description TEXT,
    builtin BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    default_version BIGINT NOT NULL,
    last_version BIGINT NOT NULL,
    UNIQUE (builtin, name_key)
);

CREATE TABLE policy_versions (
    policy_id TEXT NOT NULL REFERENCES policies (id),
    version BIGINT NOT NULL,
    document TEXT NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (policy_id, version)
);

-- `owner` is the unique id of a user or a group; which of both, its four first letters say.
CREATE TABLE policy_attachments (
    owner TEXT NOT NULL,
    policy_id TEXT NOT NULL REFERENCES policies (id),
    attached BIGINT NOT NULL,
    PRIMARY KEY (owner, policy_id)
);
CREATE INDEX policy_attachments_by_policy ON policy_attachments (policy_id);

CREATE TABLE inline_policies (
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (owner, name_key)
);

-- `resource` is the id of a user, policy, node or activation. Keys differ without regard to case, because conditions
-- find them so.
CREATE TABLE tags (
    resource TEXT NOT NULL,
    tag_key TEXT NOT NULL,
    fold_key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (resource, fold_key)
);

CREATE TABLE access_keys (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id),
    sealed_secret BLOB NOT NULL,
    active BIGINT NOT NULL,
    created BIGINT NOT NULL,
    last_used BIGINT,
    last_service TEXT,
    last_region TEXT
);
CREATE INDEX access_keys_by_user ON access_keys (user_id);

-- Of an activation's code only the SHA-256 is kept.
CREATE TABLE activations (
    id TEXT NOT NULL PRIMARY KEY,
    code_hash BLOB NOT NULL,
    description TEXT,
    default_instance_name TEXT,
    iam_role TEXT NOT NULL,
    registration_limit BIGINT NOT NULL,
    registrations BIGINT NOT NULL,
    created BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires BIGINT NOT NULL
);

CREATE TABLE nodes (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL UNIQUE,
    public_key BLOB NOT NULL,
    activation_id TEXT,
    iam_role TEXT NOT NULL,
    registered BIGINT NOT NULL,
    last_seen BIGINT NOT NULL,
    hostname TEXT NOT NULL,
    platform_name TEXT NOT NULL,
    platform_version TEXT NOT NULL,
    architecture TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    ip_address TEXT
);

-- A session outlives its node, user and key: it names them, it does not refer to them.
CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    owner_arn TEXT NOT NULL,
    owner_id TEXT NOT NULL,
    node_id TEXT NOT NULL,
    node_name TEXT NOT NULL,
    os_user TEXT NOT NULL,
    kind TEXT NOT NULL,
    document TEXT NOT NULL,
    reason TEXT,
    command TEXT,
    status TEXT NOT NULL,
    started BIGINT NOT NULL,
    ended BIGINT,
    end_reason TEXT,
    exit_status TEXT,
    recording TEXT NOT NULL,
    recording_hash TEXT,
    bytes_in BIGINT NOT NULL,
    bytes_out BIGINT NOT NULL,
    source_ip TEXT NOT NULL,
    access_key TEXT,
    limits TEXT NOT NULL,
    decision TEXT NOT NULL
);
CREATE INDEX sessions_newest_first ON sessions (started DESC, id DESC);
CREATE INDEX sessions_live ON sessions (status) WHERE ended IS NULL;
