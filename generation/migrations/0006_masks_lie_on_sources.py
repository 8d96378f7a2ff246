"""A task without a source picture has nothing that a mask could lie on."""

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("generation", "0005_tokens_and_the_audit_log")]

    operations = [
        migrations.AlterField(
            model_name="task",
            name="needs_source",
            field=models.BooleanField(
                default=True,
                help_text="Off: the picture is made from the prompt alone, as in text to image.",
            ),
        ),
        migrations.AddConstraint(
            model_name="task",
            constraint=models.CheckConstraint(
                condition=Q(needs_source=True) | Q(needs_mask=False),
                name="task_mask_needs_a_source",
                violation_error_message="Only a task with a source picture can need a mask.",
            ),
        ),
    ]
