"""The installation has a name, and candidate sets keep the one they came with."""

import uuid

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("generation", "0012_plans_that_adapt"),
    ]

    operations = [
        migrations.CreateModel(
            name="Installation",
            fields=[
                (
                    "id",
                    models.PositiveSmallIntegerField(
                        default=1, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("uid", models.UUIDField(default=uuid.uuid4, editable=False)),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("id", 1)), name="installation_only_one"
                    )
                ],
            },
        ),
        migrations.AddField(
            model_name="candidateset",
            name="uid",
            field=models.UUIDField(blank=True, editable=False, null=True),
        ),
        migrations.AddConstraint(
            model_name="candidateset",
            constraint=models.UniqueConstraint(
                condition=models.Q(("uid__isnull", False)), fields=("uid",), name="set_uid_once"
            ),
        ),
    ]
