-- The statements of every SQL database: SQLite and PostgreSQL read them alike. Parameters are written :name.

-- get --
SELECT uid, namespace, name, resource_version, generation, created, labels, annotations, owners, spec, status
FROM objects
WHERE kind = :kind AND namespace = :namespace AND name = :name;

-- list --
-- By namespace and name; a null namespace is all of them.
SELECT uid, namespace, name, resource_version, generation, created, labels, annotations, owners, spec, status
FROM objects
WHERE kind = :kind AND (CAST(:namespace AS TEXT) IS NULL OR namespace = :namespace)
ORDER BY namespace, name;

-- list_by_labels --
-- As list. {chosen} becomes has_label, once for each label, with INTERSECT between. The cross join makes SQLite look
-- the labels up first: without it, it reads every object of the kind.
SELECT chosen.uid, namespace, name, resource_version, generation, created, labels, annotations, owners, spec, status
FROM ({chosen}) AS chosen CROSS JOIN objects
WHERE objects.uid = chosen.uid AND kind = :kind AND (CAST(:namespace AS TEXT) IS NULL OR namespace = :namespace)
ORDER BY namespace, name;

-- unfinished_runs --
-- Those whose status does not begin with a phase that ends; one that begins otherwise is only looked at in vain. Without
-- an index: docs/decisions/0014 says what it would cost.
SELECT uid, namespace, name, resource_version, generation, created, labels, annotations, owners, spec, status
FROM objects
WHERE kind = 'WorkflowRun'
  AND substr(status, 1, 12) NOT IN ('{"phase":"Co', '{"phase":"Fa', '{"phase":"Ca', '{"phase":"De')
ORDER BY namespace, name;

-- has_label --
-- What carries one label of a list, numbered.
SELECT uid FROM labels WHERE key = :key{number} AND value = :value{number};

-- is_taken --
-- Who has the name, if anybody.
SELECT uid FROM objects WHERE kind = :kind AND namespace = :namespace AND name = :name;

-- exists --
SELECT 1 FROM objects WHERE uid = :uid;

-- update --
UPDATE objects
SET resource_version = :resource_version, generation = :generation,
    labels = :labels, annotations = :annotations, owners = :owners, spec = :spec
WHERE uid = :uid;

-- write_status --
UPDATE objects SET resource_version = :resource_version, status = :status WHERE uid = :uid;

-- with_everything_owned --
-- The object and all that it owns, however deep, each once.
WITH RECURSIVE doomed (uid) AS (
    SELECT uid FROM objects WHERE uid = :uid
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
UPDATE counters SET value = :oldest WHERE name = 'forgotten' AND value < :oldest;

-- forgotten --
SELECT value FROM counters WHERE name = 'forgotten';

-- changes --
-- What happened after a resource version, in its order; 1 in the last column: deleted.
SELECT resource_version, kind, namespace, name, 0 FROM objects WHERE resource_version > :after
UNION ALL
SELECT resource_version, kind, namespace, name, 1 FROM deletions WHERE resource_version > :after
ORDER BY 1;

-- everything --
-- For a reader that fell behind what deletions are kept: every object, as if it had just changed, and every deletion
-- that is still known. The last row has the newest resource version of all.
SELECT resource_version, kind, namespace, name, 0 FROM objects
UNION ALL
SELECT resource_version, kind, namespace, name, 1 FROM deletions
ORDER BY 1;

-- put_archive --
INSERT INTO archives (digest, data) VALUES (:digest, :data) ON CONFLICT DO NOTHING;

-- get_archive --
SELECT data FROM archives WHERE digest = :digest;

-- list_archives --
SELECT digest FROM archives ORDER BY digest;

-- delete_archive --
DELETE FROM archives WHERE digest = :digest RETURNING digest;
