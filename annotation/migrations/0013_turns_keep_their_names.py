"""Turns that came from another installation keep the name they came with."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("annotation", "0012_feedback_says_who_when_and_its_worth"),
        ("generation", "0013_names_that_travel"),
    ]

    operations = [
        migrations.AddField(
            model_name="assignment",
            name="uid",
            field=models.UUIDField(blank=True, editable=False, null=True),
        ),
        migrations.AddConstraint(
            model_name="assignment",
            constraint=models.UniqueConstraint(
                condition=models.Q(("uid__isnull", False)),
                fields=("uid",),
                name="assignment_uid_once",
            ),
        ),
    ]
