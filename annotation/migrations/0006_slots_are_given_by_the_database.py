"""Places in the queue, late answers, and slots given by the database.

A turn of work stored without a slot gets the lowest free one of its item; where none is free the row
is not stored. The item is locked first, so that two transactions never see the same slot free.
"""

from django.conf import settings
from django.db import migrations, models

FORWARD = """
CREATE FUNCTION annotation_give_slot() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM annotation_item WHERE id = NEW.item_id FOR NO KEY UPDATE;
  SELECT free INTO NEW.slot
  FROM annotation_item i
  JOIN annotation_campaign c ON c.id = i.campaign_id,
  generate_series(0, c.overlap - 1) free
  WHERE i.id = NEW.item_id AND NOT EXISTS (
    SELECT 1 FROM annotation_assignment a
    WHERE a.item_id = NEW.item_id AND a.slot = free AND a.kind = 'work'
      AND a.state IN ('open', 'submitted') AND a.id IS DISTINCT FROM NEW.id
  )
  ORDER BY free LIMIT 1;
  IF NEW.slot IS NULL THEN
    RETURN NULL;
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER assignment_gets_a_slot BEFORE INSERT OR UPDATE OF slot ON annotation_assignment
FOR EACH ROW WHEN (NEW.slot IS NULL AND NEW.kind = 'work') EXECUTE FUNCTION annotation_give_slot();
"""

BACKWARD = """
DROP TRIGGER assignment_gets_a_slot ON annotation_assignment;
DROP FUNCTION annotation_give_slot;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("annotation", "0005_the_database_keeps_full_items"),
        ("generation", "0004_every_source_has_a_project"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="assignment",
            name="assignment_state_known",
        ),
        migrations.AddField(
            model_name="seat",
            name="position",
            field=models.FloatField(default=-1.0, editable=False),
        ),
        migrations.AlterField(
            model_name="assignment",
            name="state",
            field=models.CharField(
                choices=[
                    ("open", "Open"),
                    ("submitted", "Submitted"),
                    ("skipped", "Skipped"),
                    ("expired", "Expired"),
                    ("late", "Late"),
                ],
                default="open",
                max_length=10,
            ),
        ),
        migrations.AddConstraint(
            model_name="assignment",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("state__in", ["open", "submitted", "skipped", "expired", "late"])
                ),
                name="assignment_state_known",
            ),
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
