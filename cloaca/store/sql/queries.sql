-- get --
SELECT uid, namespace, name, resource_version, generation, created, labels, annotations, owners, spec, status
FROM objects
WHERE kind = :kind AND namespace = :namespace AND name = :name;

-- list --
-- By namespace and name; a null namespace is all of them. {labels} becomes has_label, once for each label.
SELECT uid, namespace, name, resource_version, generation, created, labels, annotations, owners, spec, status
FROM objects
WHERE kind = :kind AND (:namespace IS NULL OR namespace = :namespace) {labels}
ORDER BY namespace, name;

-- has_label --
-- One condition of a list, numbered.
AND uid IN (SELECT uid FROM labels WHERE key = :key{number} AND value = :value{number})

-- next_resource_version --
UPDATE counters SET value = value + 1 WHERE name = 'resource_version' RETURNING value;

-- last_resource_version --
SELECT value FROM counters WHERE name = 'resource_version';

-- exists --
SELECT 1 FROM objects WHERE uid = :uid;

-- create --
INSERT INTO objects
    (uid, kind, namespace, name, resource_version, generation, created, labels, annotations, owners, spec, status)
VALUES
    (:uid, :kind, :namespace, :name, :resource_version, 1, :created, :labels, :annotations, :owners, :spec, :status);

-- update --
UPDATE objects
SET resource_version = :resource_version, generation = :generation,
    labels = :labels, annotations = :annotations, owners = :owners, spec = :spec
WHERE uid = :uid;

-- write_status --
UPDATE objects SET resource_version = :resource_version, status = :status WHERE uid = :uid;

-- add_label --
INSERT INTO labels (key, value, uid) VALUES (:key, :value, :uid);

-- drop_labels --
DELETE FROM labels WHERE uid = :uid;

-- add_owner --
INSERT OR IGNORE INTO owners (owner_uid, uid) VALUES (:owner_uid, :uid);

-- drop_owners --
DELETE FROM owners WHERE uid = :uid;

-- with_everything_owned --
-- The object and all that it owns, however deep, each once.
WITH RECURSIVE doomed (uid) AS (
    SELECT :uid
    UNION
    SELECT owners.uid FROM owners JOIN doomed ON owners.owner_uid = doomed.uid
)
SELECT objects.uid, kind, namespace, name FROM objects JOIN doomed ON objects.uid = doomed.uid;

-- delete --
DELETE FROM objects WHERE uid = :uid;

-- record_deletion --
INSERT INTO deletions (resource_version, kind, namespace, name)
VALUES (:resource_version, :kind, :namespace, :name);

-- oldest_kept --
-- The newest of those deletions that are too many; none where all may stay.
SELECT resource_version FROM deletions ORDER BY resource_version DESC LIMIT 1 OFFSET :kept;

-- forget_deletions --
DELETE FROM deletions WHERE resource_version <= :oldest;

-- remember_forgotten --
UPDATE counters SET value = max(value, :oldest) WHERE name = 'forgotten';

-- forgotten --
SELECT value FROM counters WHERE name = 'forgotten';

-- changes --
-- What happened after a resource version, in its order; 1 in the last column: deleted.
SELECT resource_version, kind, namespace, name, 0 FROM objects WHERE resource_version > :after
UNION ALL
SELECT resource_version, kind, namespace, name, 1 FROM deletions WHERE resource_version > :after
ORDER BY 1;

-- everything --
-- For a reader that fell behind what deletions are kept: every object, as if it had just changed.
SELECT resource_version, kind, namespace, name, 0 FROM objects ORDER BY 1;

-- put_archive --
INSERT OR IGNORE INTO archives (digest, data) VALUES (:digest, :data);

-- get_archive --
SELECT data FROM archives WHERE digest = :digest;

-- list_archives --
SELECT digest FROM archives ORDER BY digest;

-- delete_archive --
DELETE FROM archives WHERE digest = :digest;
