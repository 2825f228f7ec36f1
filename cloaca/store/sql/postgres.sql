-- What only PostgreSQL is asked. Parameters are written :name.

-- settings --
-- A writer that was stopped in the middle of its transaction is ended by the server before others lose patience; by
-- them, where it was stopped in the middle of a pipeline (end_stopped).
SELECT set_config('search_path', :search_path, false),
       set_config('default_transaction_isolation', 'read committed', false),
       set_config('lock_timeout', :lock_timeout, false),
       set_config('idle_in_transaction_session_timeout', :idle_timeout, false);

-- take_turn --
-- Opens a write: the last resource version, and the transaction's id, by which one learns later how it ended. The row
-- stays locked until the end of the transaction, which is over for everybody's eyes when the next one gets the lock:
-- resource versions become visible in their order, without gaps.
SELECT value, pg_current_xact_id()::text FROM counters WHERE name = 'resource_version' FOR UPDATE;

-- end_stopped --
-- End the writers whose client stopped between two statements of a pipeline, where the server waits for ever: it is not
-- "idle in transaction" then. A row for each. A living client is never so slow: between them it only builds statements.
SELECT pg_terminate_backend(activity.pid)
FROM pg_locks JOIN pg_stat_activity AS activity ON activity.pid = pg_locks.pid
WHERE pg_locks.locktype = 'relation' AND pg_locks.granted AND pg_locks.pid <> pg_backend_pid()
  AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND pg_locks.relation = 'counters'::regclass
  AND activity.usename = current_user AND activity.state = 'active' AND activity.wait_event = 'ClientRead'
  AND activity.state_change < clock_timestamp() - CAST(:idle_timeout AS interval);

-- tell --
-- Tell all listeners at commit, if a resource version was given out.
SELECT pg_notify(:channel, '') FROM counters WHERE name = 'resource_version' AND value <> :before;

-- ended --
-- How a transaction ended: committed, aborted or, while its session is still there, in progress.
SELECT pg_xact_status(CAST(:transaction AS xid8));

-- begin --
BEGIN ISOLATION LEVEL READ COMMITTED;

-- commit --
COMMIT;

-- migration_lock --
SELECT pg_advisory_xact_lock(hashtextextended(:lock, 0));

-- has_schema --
SELECT 1 FROM pg_namespace WHERE nspname = :schema;

-- has_migrations --
SELECT 1 FROM pg_tables WHERE schemaname = :schema AND tablename = 'migrations';

-- make_migrations --
CREATE TABLE migrations (version INTEGER PRIMARY KEY, applied TIMESTAMPTZ NOT NULL DEFAULT now());

-- version --
SELECT coalesce(max(version), 0) FROM migrations;

-- migrated --
INSERT INTO migrations (version) VALUES (:version);

-- last_resource_version --
SELECT value FROM counters WHERE name = 'resource_version';

-- next_resource_version --
UPDATE counters SET value = value + 1 WHERE name = 'resource_version' RETURNING value;

-- create --
-- Its resource version; no row: the name is taken. Whoever runs it has taken the turn, so nobody takes it meanwhile.
WITH next AS (
    UPDATE counters SET value = value + 1
    WHERE name = 'resource_version'
      AND NOT EXISTS (SELECT 1 FROM objects WHERE kind = :kind AND namespace = :namespace AND name = :name)
    RETURNING value
)
INSERT INTO objects
    (uid, kind, namespace, name, resource_version, generation, created, labels, annotations, owners, spec, status)
SELECT :uid, :kind, :namespace, :name, value, 1, :created, :labels, :annotations, :owners, :spec, :status
FROM next
RETURNING resource_version;

-- record --
-- A new status for an object as it was last read; its new resource version. No row: it is gone, it was changed, or it
-- has that status already.
WITH next AS (
    UPDATE counters SET value = value + 1
    WHERE name = 'resource_version'
      AND EXISTS (SELECT 1 FROM objects WHERE uid = :uid AND resource_version = :seen AND status <> :status)
    RETURNING value
)
UPDATE objects SET status = :status, resource_version = value FROM next WHERE uid = :uid
RETURNING resource_version;
