-- How SQLite says what the two databases say differently. Parameters are written :name.

-- last_resource_version --
SELECT max((SELECT coalesce(max(resource_version), 0) FROM objects),
           (SELECT coalesce(max(resource_version), 0) FROM deletions));

-- next_resource_version --
-- Asked before the row that had the last one is deleted.
SELECT 1 + max((SELECT coalesce(max(resource_version), 0) FROM objects),
               (SELECT coalesce(max(resource_version), 0) FROM deletions));

-- create --
-- Changes nothing where the name is taken. given_out notes its argument, and is it: RETURNING costs a tenth of a write.
INSERT INTO objects
    (uid, kind, namespace, name, resource_version, generation, created, labels, annotations, owners, spec, status)
VALUES
    (:uid, :kind, :namespace, :name,
     given_out(1 + max((SELECT coalesce(max(resource_version), 0) FROM objects),
                       (SELECT coalesce(max(resource_version), 0) FROM deletions))),
     1, :created, :labels, :annotations, :owners, :spec, :status)
ON CONFLICT (kind, namespace, name) DO NOTHING;

-- record --
-- A new status for an object as it was last read. Changes nothing where it is gone, was changed, or has that status
-- already.
UPDATE objects
SET status = :status,
    resource_version = given_out(1 + max((SELECT coalesce(max(resource_version), 0) FROM objects),
                                         (SELECT coalesce(max(resource_version), 0) FROM deletions)))
WHERE uid = :uid AND resource_version = :seen AND status <> :status;
