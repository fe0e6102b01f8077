-- SSH public keys that people registered. A key is registered once in the account: at the SSH door it must name one
-- user. `line` is the key as an `.pub` file has it; `fingerprint` is its SHA-256 in OpenSSH's form.
CREATE TABLE ssh_public_keys (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id),
    fingerprint TEXT NOT NULL UNIQUE,
    line TEXT NOT NULL,
    active BIGINT NOT NULL,
    uploaded BIGINT NOT NULL
);
CREATE INDEX ssh_public_keys_by_user ON ssh_public_keys (user_id);
