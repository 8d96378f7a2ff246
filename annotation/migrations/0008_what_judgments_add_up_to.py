"""Consensus of weighted people; who resolved a flag; when a paused person was resumed."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("annotation", "0007_ratings_keep_their_history"),
        ("generation", "0004_every_source_has_a_project"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="flag",
            name="note",
            field=models.CharField(blank=True, max_length=300),
        ),
        migrations.AddField(
            model_name="flag",
            name="resolved_by",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="seat",
            name="resumed_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.CreateModel(
            name="Aggregation",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("requested_at", models.DateTimeField(blank=True, null=True)),
                ("made_at", models.DateTimeField(blank=True, null=True)),
                ("judgments", models.PositiveIntegerField(default=0)),
                ("seconds", models.FloatField(blank=True, null=True)),
                ("reliability", models.JSONField(blank=True, default=list)),
                (
                    "campaign",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="aggregation",
                        to="annotation.campaign",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Consensus",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("confidence", models.FloatField()),
                ("people", models.PositiveSmallIntegerField()),
                ("majority_share", models.FloatField()),
                ("scores", models.JSONField(default=dict)),
                (
                    "best",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="generation.candidate",
                    ),
                ),
                (
                    "dimension",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="annotation.dimension",
                    ),
                ),
                (
                    "item",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="consensus",
                        to="annotation.item",
                    ),
                ),
                (
                    "majority",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="generation.candidate",
                    ),
                ),
                (
                    "worst",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="generation.candidate",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "consensus",
                "constraints": [
                    models.UniqueConstraint(fields=("item", "dimension"), name="consensus_once"),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("confidence__range", (0, 1)), ("majority_share__range", (0, 1))
                        ),
                        name="consensus_shares",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("best__isnull", True), ("worst__isnull", True)),
                            models.Q(
                                ("best__isnull", False),
                                ("worst__isnull", False),
                                models.Q(("best", models.F("worst")), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="consensus_best_is_not_worst",
                    ),
                ],
            },
        ),
    ]
