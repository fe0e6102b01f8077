-- Roles. `trust` is the trust policy as it was given, `trust_ids` the unique ids of the users and roles that it names, as
-- a JSON object from ARN to id: a namesake made later is somebody else.
CREATE TABLE roles (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL UNIQUE,
    path TEXT NOT NULL,
    created BIGINT NOT NULL,
    description TEXT,
    trust TEXT NOT NULL,
    trust_ids TEXT NOT NULL,
    max_session BIGINT NOT NULL,
    boundary_arn TEXT REFERENCES policies (arn)
);

-- Virtual MFA devices; `id` is the serial number, an ARN. `last_step` is the newest step whose code was used.
CREATE TABLE mfa_devices (
    id TEXT NOT NULL PRIMARY KEY,
    name_key TEXT NOT NULL UNIQUE,
    sealed_seed BLOB NOT NULL,
    created BIGINT NOT NULL,
    user_id TEXT REFERENCES users (id),
    enabled BIGINT,
    last_step BIGINT NOT NULL
);
CREATE INDEX mfa_devices_by_user ON mfa_devices (user_id);

-- OpenID Connect providers; `id` is the ARN, `client_ids` and `thumbprints` are JSON lists.
CREATE TABLE oidc_providers (
    id TEXT NOT NULL PRIMARY KEY,
    url TEXT NOT NULL UNIQUE,
    client_ids TEXT NOT NULL,
    thumbprints TEXT NOT NULL,
    created BIGINT NOT NULL
);
