-- How SQLite says what the two databases say differently. Parameters are written :name.

-- last_resource_version --
SELECT max((SELECT coalesce(max(resource_version), 0) FROM objects),
           (SELECT coalesce(max(resource_version), 0) FROM deletions));

-- next_resource_version --
-- Asked before the row that had the last one is deleted.
SELECT 1 + max((SELECT coalesce(max(resource_version), 0) FROM objects),
               (SELECT coalesce(max(resource_version), 0) FROM deletions));

-- create --
-- Its resource version; no row: the name is taken.
INSERT INTO objects
    (uid, kind, namespace, name, resource_version, generation, created, labels, annotations, owners, spec, status)
VALUES
    (:uid, :kind, :namespace, :name,
     1 + max((SELECT coalesce(max(resource_version), 0) FROM objects),
             (SELECT coalesce(max(resource_version), 0) FROM deletions)),
     1, :created, :labels, :annotations, :owners, :spec, :status)
ON CONFLICT (kind, namespace, name) DO NOTHING
RETURNING resource_version;

-- record --
-- A new status for an object as it was last read; its new resource version. No row: it is gone, it was changed, or it
-- has that status already.
UPDATE objects
SET status = :status,
    resource_version = 1 + max((SELECT coalesce(max(resource_version), 0) FROM objects),
                               (SELECT coalesce(max(resource_version), 0) FROM deletions))
WHERE uid = :uid AND resource_version = :seen AND status <> :status
RETURNING resource_version;
