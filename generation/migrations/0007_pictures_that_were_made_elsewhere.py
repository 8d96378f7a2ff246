"""Pictures of outside systems: nothing was drawn for them here, and one may stand alone."""

from django.db import migrations, models
from django.db.models import Q

DRAWN = ("seed", "num_inference_steps", "strength", "guidance_scale", "true_cfg_scale")


class Migration(migrations.Migration):
    dependencies = [("generation", "0006_masks_lie_on_sources")]

    operations = [
        migrations.RemoveConstraint(model_name="candidateset", name="set_two_to_eight"),
        migrations.AddConstraint(
            model_name="candidateset",
            constraint=models.CheckConstraint(
                condition=Q(size__range=(1, 8)), name="set_one_to_eight"
            ),
        ),
        migrations.AlterField("candidate", "seed", models.BigIntegerField(blank=True, null=True)),
        migrations.AlterField(
            "candidate",
            "num_inference_steps",
            models.PositiveSmallIntegerField(blank=True, null=True),
        ),
        migrations.AlterField("candidate", "strength", models.FloatField(blank=True, null=True)),
        migrations.AlterField(
            "candidate", "guidance_scale", models.FloatField(blank=True, null=True)
        ),
        migrations.AlterField(
            "candidate", "true_cfg_scale", models.FloatField(blank=True, null=True)
        ),
        migrations.AddConstraint(
            model_name="candidate",
            constraint=models.CheckConstraint(
                condition=Q(**{f"{name}__isnull": True for name in DRAWN})
                | Q(**{f"{name}__isnull": False for name in DRAWN}),
                name="candidate_drawn_whole",
            ),
        ),
    ]
