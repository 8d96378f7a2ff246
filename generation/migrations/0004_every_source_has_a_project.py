import django.db.models.deletion
from django.db import migrations, models

import generation.models


class Migration(migrations.Migration):
    dependencies = [("generation", "0003_put_all_sources_in_one_project")]

    operations = [
        migrations.AlterField(
            model_name="source",
            name="project",
            field=models.ForeignKey(
                default=generation.models.default_project,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="sources",
                to="generation.project",
            ),
        ),
        migrations.RemoveConstraint(model_name="source", name="source_not_twice"),
        migrations.AddConstraint(
            model_name="source",
            constraint=models.UniqueConstraint(
                fields=("project", "task", "image", "mask", "prompt"), name="source_not_twice"
            ),
        ),
    ]
