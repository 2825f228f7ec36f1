-- What the administration of tenants asks PostgreSQL. Parameters are written :name.

-- turn --
SELECT pg_advisory_xact_lock(hashtextextended('cloacina tenants', 0));

-- role --
-- The mark of a role, and whether it may do more than a tenant may.
SELECT shobj_description(oid, 'pg_authid'), rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
FROM pg_roles WHERE rolname = :role;

-- schema --
-- The owner of a schema, and its mark.
SELECT pg_get_userbyid(nspowner), obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = :schema;

-- is_superuser --
SELECT rolsuper FROM pg_roles WHERE rolname = current_user;

-- everybody_may --
-- Whether every role may make schemas in this database, and objects in the schema public (before PostgreSQL 15).
SELECT has_database_privilege('public', current_database(), 'CREATE'),
       EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = 'public' AND has_schema_privilege('public', oid, 'CREATE'));

-- sees --
-- Other schemas that hold runs, and that a role may look into.
SELECT nspname FROM pg_namespace AS schemas
WHERE nspname <> :schema AND has_schema_privilege(:role, oid, 'USAGE')
  AND 2 = (SELECT count(*) FROM pg_class WHERE relnamespace = schemas.oid AND relname IN ('objects', 'counters'));

-- end_sessions --
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = :role AND pid <> pg_backend_pid();
