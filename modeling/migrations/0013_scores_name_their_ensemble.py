"""A set's score says which reward models judged together."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("modeling", "0012_governance_reviews")]

    operations = [
        migrations.AddField(
            model_name="setscore",
            name="members",
            field=models.JSONField(default=list),
        ),
    ]
