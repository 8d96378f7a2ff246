"""Studies, figures that others published, and links by which anybody reads a leaderboard."""

import django.core.validators
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import generation.models


class Migration(migrations.Migration):
    dependencies = [
        ("annotation", "0010_add_sets_in_the_background"),
        ("generation", "0007_pictures_that_were_made_elsewhere"),
        ("modeling", "0006_rounds_write_down_every_transition"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="LeaderboardLink",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("simulated", models.BooleanField(default=False)),
                (
                    "digest",
                    models.CharField(
                        max_length=64,
                        unique=True,
                        validators=[
                            django.core.validators.RegexValidator(
                                "^[0-9a-f]{64}$",
                                "A sha256 in hexadecimal has 64 characters 0-9a-f.",
                            )
                        ],
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("revoked_at", models.DateTimeField(blank=True, null=True)),
                (
                    "campaign",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="annotation.campaign",
                    ),
                ),
                (
                    "created_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "dimension",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="annotation.dimension",
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        default=generation.models.default_project,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="leaderboard_links",
                        to="generation.project",
                    ),
                ),
                (
                    "task",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="generation.task",
                    ),
                ),
            ],
            options={
                "ordering": ["-pk"],
            },
        ),
        migrations.CreateModel(
            name="Study",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=120, unique=True, verbose_name="Name")),
                ("question", models.TextField(blank=True, verbose_name="What it should find out")),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "campaigns",
                    models.ManyToManyField(
                        blank=True,
                        help_text="None chosen: every rating and comparison of the project.",
                        related_name="studies",
                        to="annotation.campaign",
                    ),
                ),
                (
                    "created_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        default=generation.models.default_project,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="studies",
                        to="generation.project",
                    ),
                ),
                (
                    "systems",
                    models.ManyToManyField(
                        blank=True,
                        help_text="None chosen: all that were judged.",
                        related_name="studies",
                        to="generation.policy",
                    ),
                ),
                (
                    "tasks",
                    models.ManyToManyField(
                        blank=True,
                        help_text="None chosen: all that were judged.",
                        to="generation.task",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "studies",
                "ordering": ["-pk"],
            },
        ),
        migrations.CreateModel(
            name="PublishedFigure",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("system", models.CharField(max_length=120)),
                ("versus", models.CharField(blank=True, max_length=120)),
                ("task", models.CharField(max_length=80)),
                ("dimension", models.CharField(blank=True, max_length=80)),
                (
                    "metric",
                    models.CharField(
                        choices=[
                            ("usable", "Usability rate"),
                            ("mos", "Mean opinion score"),
                            ("success", "Success rate"),
                            ("reward_accuracy", "Accuracy of the reward model"),
                            ("good", "Good"),
                            ("same", "Same"),
                            ("bad", "Bad"),
                        ],
                        max_length=16,
                    ),
                ),
                ("value", models.FloatField()),
                ("n", models.PositiveIntegerField(blank=True, null=True)),
                ("citation", models.CharField(blank=True, max_length=300)),
                (
                    "study",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="published",
                        to="modeling.study",
                    ),
                ),
            ],
            options={
                "ordering": ["pk"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("study", "system", "versus", "task", "dimension", "metric"),
                        name="published_figure_once",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("metric", "mos"), ("value__range", (1, 5))),
                            models.Q(
                                models.Q(("metric", "mos"), _negated=True),
                                ("value__range", (0, 100)),
                            ),
                            _connector="OR",
                        ),
                        name="published_figure_in_range",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("metric__in", ["good", "same", "bad"]),
                                models.Q(("versus", ""), _negated=True),
                            ),
                            models.Q(
                                models.Q(("metric__in", ["good", "same", "bad"]), _negated=True),
                                ("versus", ""),
                            ),
                            _connector="OR",
                        ),
                        name="published_figure_versus_fits",
                    ),
                ],
            },
        ),
    ]
