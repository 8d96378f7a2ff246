"""How often somebody may try to log in, counted for all processes together."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("generation", "0015_writes_are_done_once"),
    ]

    operations = [
        migrations.CreateModel(
            name="Attempts",
            fields=[
                ("key", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("count", models.PositiveIntegerField()),
                ("started_at", models.DateTimeField(db_index=True)),
            ],
            options={
                "verbose_name_plural": "attempts",
                "db_table": "generation_attempts",
            },
        ),
    ]
