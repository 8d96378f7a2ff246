"""What others' people said elsewhere is told from what people were asked here."""

from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("annotation", "0013_turns_keep_their_names"),
        ("generation", "0014_sources_come_with_imported_judgments"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="campaign",
            name="origin",
            field=models.CharField(
                choices=[("people", "asked here"), ("imported", "Imported")],
                default="people",
                editable=False,
                max_length=8,
            ),
        ),
        migrations.AddConstraint(
            model_name="campaign",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("origin", "people"),
                    models.Q(("origin", "imported"), ("state", "closed")),
                    _connector="OR",
                ),
                name="campaign_imported_is_closed",
            ),
        ),
    ]
