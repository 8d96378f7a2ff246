"""Plans give their values weights, which are learnt from labels."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("generation", "0011_sources_say_where_they_are_from"),
    ]

    operations = [
        migrations.AddField(
            model_name="samplingplan",
            name="weights",
            field=models.JSONField(blank=True, default=dict, editable=False),
        ),
    ]
