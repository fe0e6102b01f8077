-- Session documents. A name is unique with regard to case, as in AWS; tags hang on the id, so that they do not pass to
-- a namesake. Versions count up and are never used twice.
CREATE TABLE documents (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    document_type TEXT NOT NULL,
    target_type TEXT,
    created BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    default_version BIGINT NOT NULL,
    last_version BIGINT NOT NULL
);

CREATE TABLE document_versions (
    document_id TEXT NOT NULL REFERENCES documents (id),
    version BIGINT NOT NULL,
    version_name TEXT,
    display_name TEXT,
    content TEXT NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (document_id, version),
    UNIQUE (document_id, version_name)
);

-- With which accounts a document is shared; `all` for every one.
CREATE TABLE document_shares (
    document_id TEXT NOT NULL REFERENCES documents (id),
    account TEXT NOT NULL,
    shared_version TEXT NOT NULL,
    PRIMARY KEY (document_id, account)
);
