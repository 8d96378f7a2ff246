"""What others judged elsewhere is told from what is there to be learnt from."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("generation", "0013_names_that_travel")]

    operations = [
        migrations.RemoveConstraint(model_name="source", name="source_origin_known"),
        migrations.AlterField(
            model_name="source",
            name="origin",
            field=models.CharField(
                choices=[("library", "Library"), ("edit", "Edit"), ("imported", "Imported")],
                default="library",
                max_length=8,
            ),
        ),
        migrations.AddConstraint(
            model_name="source",
            constraint=models.CheckConstraint(
                condition=models.Q(("origin__in", ["library", "edit", "imported"])),
                name="source_origin_known",
            ),
        ),
    ]
