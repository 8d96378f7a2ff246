"""Every campaign has a project; triggers keep `Item.full`.

An item is full when its overlap's worth of turns is held or done. The item is locked before its
turns are counted, so that two transactions cannot each miss the other's turn.
"""

import django.db.models.deletion
from django.db import migrations, models

import generation.models

FORWARD = """
CREATE FUNCTION annotation_keep_full() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  touched bigint := CASE WHEN TG_OP = 'DELETE' THEN OLD.item_id ELSE NEW.item_id END;
BEGIN
  PERFORM 1 FROM annotation_item WHERE id = touched FOR NO KEY UPDATE;
  UPDATE annotation_item i
  SET "full" = NOT i."full"
  FROM annotation_campaign c
  WHERE i.id = touched AND c.id = i.campaign_id AND i."full" <> (
    c.overlap <= (
      SELECT count(*) FROM annotation_assignment a
      WHERE a.item_id = i.id AND a.kind = 'work' AND a.state IN ('open', 'submitted')
    )
  );
  RETURN NULL;
END $$;

CREATE TRIGGER assignment_taken_keeps_full AFTER INSERT ON annotation_assignment
FOR EACH ROW WHEN (NEW.kind = 'work') EXECUTE FUNCTION annotation_keep_full();

CREATE TRIGGER assignment_changed_keeps_full AFTER UPDATE OF state ON annotation_assignment
FOR EACH ROW WHEN (
  NEW.kind = 'work'
  AND (OLD.state IN ('open', 'submitted')) <> (NEW.state IN ('open', 'submitted'))
) EXECUTE FUNCTION annotation_keep_full();

CREATE TRIGGER assignment_deleted_keeps_full AFTER DELETE ON annotation_assignment
FOR EACH ROW WHEN (OLD.kind = 'work') EXECUTE FUNCTION annotation_keep_full();

CREATE FUNCTION annotation_overlap_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE annotation_item i
  SET "full" = NOT i."full"
  WHERE i.campaign_id = NEW.id AND i."full" <> (
    NEW.overlap <= (
      SELECT count(*) FROM annotation_assignment a
      WHERE a.item_id = i.id AND a.kind = 'work' AND a.state IN ('open', 'submitted')
    )
  );
  RETURN NULL;
END $$;

CREATE TRIGGER campaign_overlap_keeps_full AFTER UPDATE OF overlap ON annotation_campaign
FOR EACH ROW WHEN (OLD.overlap <> NEW.overlap) EXECUTE FUNCTION annotation_overlap_changed();
"""

BACKWARD = """
DROP TRIGGER campaign_overlap_keeps_full ON annotation_campaign;
DROP FUNCTION annotation_overlap_changed;
DROP TRIGGER assignment_deleted_keeps_full ON annotation_assignment;
DROP TRIGGER assignment_changed_keeps_full ON annotation_assignment;
DROP TRIGGER assignment_taken_keeps_full ON annotation_assignment;
DROP FUNCTION annotation_keep_full;
"""


class Migration(migrations.Migration):
    dependencies = [("annotation", "0004_put_all_campaigns_in_one_project")]

    operations = [
        migrations.AlterField(
            model_name="campaign",
            name="project",
            field=models.ForeignKey(
                default=generation.models.default_project,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="campaigns",
                to="generation.project",
            ),
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
