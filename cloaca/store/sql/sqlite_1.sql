-- Version 1 of the schema. A later version is a further file; this one never changes.

-- One row an object. resource_version comes from one counter for the whole store, so that it orders all writes.
-- A table with row ids: measured, it writes in two thirds of the time that one ordered by uid takes.
CREATE TABLE objects (
    id INTEGER PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    resource_version INTEGER NOT NULL,
    generation INTEGER NOT NULL,
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
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    uid TEXT NOT NULL,
    PRIMARY KEY (key, value, uid)
) WITHOUT ROWID;

CREATE INDEX labels_by_uid ON labels (uid);

-- What deletion follows: a copy of objects.owners.
CREATE TABLE owners (
    owner_uid TEXT NOT NULL,
    uid TEXT NOT NULL,
    PRIMARY KEY (owner_uid, uid)
) WITHOUT ROWID;

CREATE INDEX owners_by_uid ON owners (uid);

-- What was deleted, for whoever follows the changes; the oldest are dropped, see counters.
CREATE TABLE deletions (
    resource_version INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL
);

CREATE TABLE archives (
    digest TEXT PRIMARY KEY,
    data BLOB NOT NULL
);

-- resource_version: the last one given out. forgotten: deletions up to this one were dropped.
CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

INSERT INTO counters (name, value) VALUES ('resource_version', 0), ('forgotten', 0);
