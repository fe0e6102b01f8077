-- The address that a node has for clients of EC2 Instance Connect: a number below 2^22, added to 100.64.0.0. It stays
-- the node's when the node is deregistered: nobody else shall be found where it was.
CREATE TABLE node_addresses (
    node_id TEXT NOT NULL PRIMARY KEY,
    address BIGINT NOT NULL UNIQUE
);

-- Keys that were pushed to nodes: what a login is explained by. Only fingerprints, never needed again after a while.
CREATE TABLE pushed_keys (
    node_id TEXT NOT NULL,
    os_user TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    request_id TEXT NOT NULL,
    principal_arn TEXT NOT NULL,
    pushed BIGINT NOT NULL,
    expires BIGINT NOT NULL
);
CREATE INDEX pushed_keys_by_key ON pushed_keys (node_id, fingerprint, os_user, pushed);
CREATE INDEX pushed_keys_by_age ON pushed_keys (pushed);
