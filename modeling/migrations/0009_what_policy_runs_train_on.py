"""Policy runs remember which sources they trained on."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("generation", "0010_withdrawals"),
        ("modeling", "0008_rounds_start_by_rules"),
    ]

    operations = [
        migrations.AddField(
            model_name="trainingrun",
            name="sources",
            field=models.ManyToManyField(
                blank=True, related_name="training_runs", to="generation.source"
            ),
        ),
    ]
