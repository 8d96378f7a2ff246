"""Campaigns of before belong to the project “Main”; their full items are marked."""

from django.db import migrations

FULL = """
UPDATE annotation_item i SET "full" = true
FROM annotation_campaign c
WHERE c.id = i.campaign_id AND c.overlap <= (
  SELECT count(*) FROM annotation_assignment a
  WHERE a.item_id = i.id AND a.state IN ('open', 'submitted')
)
"""


def put_in_main(apps, schema_editor):
    Campaign = apps.get_model("annotation", "Campaign")
    if Campaign.objects.filter(project=None).exists():
        main, _ = apps.get_model("generation", "Project").objects.get_or_create(
            slug="main", defaults={"name": "Main"}
        )
        Campaign.objects.filter(project=None).update(project=main)


class Migration(migrations.Migration):
    dependencies = [("annotation", "0003_kinds_of_turns_and_known_answers")]

    operations = [
        migrations.RunPython(put_in_main, migrations.RunPython.noop),
        migrations.RunSQL(FULL, migrations.RunSQL.noop),
    ]
