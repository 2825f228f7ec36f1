-- Version 2: the database itself keeps what selectors and deletion look up, so that a write is one statement, and the
-- last resource version is the largest one in the tables. What a row needs no look-up for, it needs no index for.
DELETE FROM counters WHERE name = 'resource_version';
DROP INDEX labels_by_uid;
DROP INDEX owners_by_uid;

CREATE TRIGGER labels_of_created AFTER INSERT ON objects WHEN NEW.labels <> '{}' BEGIN
    INSERT INTO labels (key, value, uid) SELECT key, value, NEW.uid FROM json_each(NEW.labels);
END;

CREATE TRIGGER owners_of_created AFTER INSERT ON objects WHEN NEW.owners <> '[]' BEGIN
    INSERT OR IGNORE INTO owners (owner_uid, uid)
    SELECT json_extract(value, '$.uid'), NEW.uid FROM json_each(NEW.owners);
END;

CREATE TRIGGER object_updated AFTER UPDATE OF labels, owners ON objects BEGIN
    DELETE FROM labels WHERE (key, value, uid) IN (SELECT key, value, OLD.uid FROM json_each(OLD.labels));
    DELETE FROM owners
    WHERE (owner_uid, uid) IN (SELECT json_extract(value, '$.uid'), OLD.uid FROM json_each(OLD.owners));
    INSERT INTO labels (key, value, uid) SELECT key, value, NEW.uid FROM json_each(NEW.labels);
    INSERT OR IGNORE INTO owners (owner_uid, uid)
    SELECT json_extract(value, '$.uid'), NEW.uid FROM json_each(NEW.owners);
END;

CREATE TRIGGER object_deleted AFTER DELETE ON objects BEGIN
    DELETE FROM labels WHERE (key, value, uid) IN (SELECT key, value, OLD.uid FROM json_each(OLD.labels));
    DELETE FROM owners
    WHERE (owner_uid, uid) IN (SELECT json_extract(value, '$.uid'), OLD.uid FROM json_each(OLD.owners));
END;
