-- Certificates that were issued to people: what logins are explained by, and what can be revoked. No keys.
CREATE TABLE ssh_certificates (
    serial BIGINT NOT NULL PRIMARY KEY,
    authority TEXT NOT NULL,
    key_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    principal_arn TEXT NOT NULL,
    statement TEXT NOT NULL,
    os_users TEXT NOT NULL,
    sources TEXT NOT NULL,
    force_command TEXT,
    source_ip TEXT NOT NULL,
    issued BIGINT NOT NULL,
    expires BIGINT NOT NULL
);
CREATE INDEX ssh_certificates_by_age ON ssh_certificates (issued, serial);
CREATE INDEX ssh_certificates_by_end ON ssh_certificates (expires);
CREATE INDEX ssh_certificates_by_principal ON ssh_certificates (principal_arn, expires);

-- What was revoked: a serial number, a key id, or the fingerprint of a key.
CREATE TABLE ssh_revocations (
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    reason TEXT NOT NULL,
    revoked_by TEXT NOT NULL,
    revoked BIGINT NOT NULL,
    PRIMARY KEY (kind, value)
);
