-- People's accounts on nodes. `settings` is a rule, `state` a node's account, both JSON objects.
CREATE TABLE account_rules (
    name TEXT NOT NULL,
    name_key TEXT NOT NULL PRIMARY KEY,
    settings TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);

-- Who has which local name and user id, on every node the same.
CREATE TABLE account_pairs (
    principal TEXT NOT NULL,
    form TEXT NOT NULL,
    os_user TEXT NOT NULL UNIQUE,
    uid BIGINT NOT NULL UNIQUE,
    released BIGINT,
    PRIMARY KEY (principal, form)
);

-- The synchronised accounts of each node.
CREATE TABLE node_accounts (
    node TEXT NOT NULL,
    os_user TEXT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (node, os_user)
);

-- What each node was told last (versions only rise), and how far its own changes are in the trail.
CREATE TABLE account_nodes (
    node TEXT NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    recorded BIGINT NOT NULL
);

-- Keys of groups, for the accounts and nodes that each names.
CREATE TABLE account_key_files (
    name TEXT NOT NULL,
    name_key TEXT NOT NULL PRIMARY KEY,
    settings TEXT NOT NULL,
    updated BIGINT NOT NULL
);
