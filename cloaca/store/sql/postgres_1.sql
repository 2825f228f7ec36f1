-- Version 1 of the schema. A later version is a further file; this one never changes.

-- One row an object. resource_version comes from one counter for the whole store, so that it orders all writes.
-- Texts compare byte by byte, as in SQLite and in Kubernetes, whatever the language of the database.
CREATE TABLE objects (
    uid TEXT COLLATE "C" PRIMARY KEY,
    kind TEXT COLLATE "C" NOT NULL,
    namespace TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    resource_version BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    created TEXT NOT NULL,
    labels TEXT NOT NULL,
    annotations TEXT NOT NULL,
    owners TEXT NOT NULL,
    spec TEXT NOT NULL,
    status TEXT NOT NULL
);

CREATE UNIQUE INDEX objects_by_name ON objects (kind, namespace, name);
CREATE INDEX objects_by_resource_version ON objects (resource_version);

-- What selectors look up: a copy of objects.labels.
CREATE TABLE labels (
    key TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    uid TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (key, value, uid)
);

CREATE INDEX labels_by_uid ON labels (uid);

-- What deletion follows: a copy of objects.owners.
CREATE TABLE owners (
    owner_uid TEXT COLLATE "C" NOT NULL,
    uid TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (owner_uid, uid)
);

CREATE INDEX owners_by_uid ON owners (uid);

-- What was deleted, for whoever follows the changes; the oldest are dropped, see counters.
CREATE TABLE deletions (
    resource_version BIGINT PRIMARY KEY,
    kind TEXT COLLATE "C" NOT NULL,
    namespace TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL
);

CREATE TABLE archives (
    digest TEXT COLLATE "C" PRIMARY KEY,
    data BYTEA NOT NULL
);

-- resource_version: the last one given out; its row is also the lock that lets writers take turns. Room is left in its
-- page, so that a new version of the row stays there. forgotten: deletions up to this one were dropped.
CREATE TABLE counters (
    name TEXT COLLATE "C" PRIMARY KEY,
    value BIGINT NOT NULL
) WITH (fillfactor = 10);

INSERT INTO counters (name, value) VALUES ('resource_version', 0), ('forgotten', 0);
