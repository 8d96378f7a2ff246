"""Places in the queue count from before the highest priority.

Whoever has a place looks through the queue from its start once more, so that nothing with priority
is passed over.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("annotation", "0008_what_judgments_add_up_to")]

    operations = [
        migrations.AlterField(
            model_name="seat",
            name="position",
            field=models.FloatField(default=-50.0, editable=False),
        ),
        migrations.RunSQL("UPDATE annotation_seat SET position = -50.0", migrations.RunSQL.noop),
    ]
