"""Whoever is erased leaves the audit log, too: names, details and addresses may change, where
`generation.audit.erasing` says so; acts, times and things may not, and no entry is ever deleted.
"""

from django.db import migrations

FORWARD = """
CREATE OR REPLACE FUNCTION generation_audit_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND current_setting('oneloop.erasing', true) = 'yes' THEN
    RETURN NULL;
  END IF;
  RAISE EXCEPTION 'The audit log is only added to: % was refused.', TG_OP
    USING ERRCODE = 'restrict_violation';
END $$;

CREATE FUNCTION generation_audit_may_forget() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (OLD.id, OLD.at, OLD.verb, OLD.kind, OLD.object_id, OLD.actor_id, OLD.project_id)
    IS DISTINCT FROM
    (NEW.id, NEW.at, NEW.verb, NEW.kind, NEW.object_id, NEW.actor_id, NEW.project_id)
  THEN
    RAISE EXCEPTION 'The audit log is only added to: % was refused.', TG_OP
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER audit_may_forget BEFORE UPDATE ON generation_auditentry
FOR EACH ROW EXECUTE FUNCTION generation_audit_may_forget();
"""

BACKWARD = """
DROP TRIGGER audit_may_forget ON generation_auditentry;
DROP FUNCTION generation_audit_may_forget;
CREATE OR REPLACE FUNCTION generation_audit_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'The audit log is only added to: % was refused.', TG_OP
    USING ERRCODE = 'restrict_violation';
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("generation", "0016_tries_are_counted")]

    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
