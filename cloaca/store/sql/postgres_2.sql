-- Version 2: the database itself keeps what selectors and deletion look up, so that a write is one statement.

CREATE FUNCTION look_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM labels WHERE uid = OLD.uid;
        DELETE FROM owners WHERE uid = OLD.uid;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO labels (key, value, uid) SELECT key, value, NEW.uid FROM json_each_text(NEW.labels::json);
        INSERT INTO owners (owner_uid, uid)
        SELECT owner ->> 'uid', NEW.uid FROM json_array_elements(NEW.owners::json) AS owner
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER look_up AFTER INSERT OR DELETE OR UPDATE OF labels, owners ON objects
FOR EACH ROW EXECUTE FUNCTION look_up();
