"""Ratings keep their history and stay inside their set. No version before this one stored any."""

import django.db.models.deletion
from django.db import migrations, models


def composite(table: str, name: str, column: str, target: str) -> migrations.RunSQL:
    return migrations.RunSQL(
        f'ALTER TABLE "{table}" ADD CONSTRAINT "{name}" FOREIGN KEY ("{column}", "set_id") '
        f'REFERENCES "{target}" ("id", "set_id") DEFERRABLE INITIALLY DEFERRED',
        f'ALTER TABLE "{table}" DROP CONSTRAINT "{name}"',
    )


class Migration(migrations.Migration):
    dependencies = [
        ("annotation", "0006_slots_are_given_by_the_database"),
        ("generation", "0004_every_source_has_a_project"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="rating",
            name="rating_once",
        ),
        migrations.RemoveConstraint(
            model_name="rating",
            name="rating_value_in_range",
        ),
        migrations.AddField(
            model_name="rating",
            name="current",
            field=models.BooleanField(default=True),
        ),
        migrations.AddField(
            model_name="rating",
            name="revision",
            field=models.PositiveIntegerField(default=1),
        ),
        migrations.AddField(
            model_name="rating",
            name="set",
            field=models.ForeignKey(
                default=0,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="ratings",
                to="generation.candidateset",
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="rating",
            name="withdrawn_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="rating",
            name="wording",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="annotation.wording",
            ),
        ),
        migrations.AddConstraint(
            model_name="rating",
            constraint=models.UniqueConstraint(
                condition=models.Q(("current", True), ("dimension__isnull", False)),
                fields=("assignment", "candidate", "dimension"),
                name="rating_one_current",
            ),
        ),
        migrations.AddConstraint(
            model_name="rating",
            constraint=models.UniqueConstraint(
                condition=models.Q(("current", True), ("dimension__isnull", True)),
                fields=("assignment", "candidate"),
                name="rating_one_usable",
            ),
        ),
        migrations.AddConstraint(
            model_name="rating",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("dimension__isnull", True),
                        ("value__range", (0, 1)),
                        ("wording__isnull", True),
                    ),
                    models.Q(
                        ("dimension__isnull", False),
                        ("value__range", (1, 5)),
                        ("wording__isnull", False),
                    ),
                    _connector="OR",
                ),
                name="rating_value_in_range",
            ),
        ),
        composite(
            "annotation_rating",
            "rating_assignment_has_the_set",
            "assignment_id",
            "annotation_assignment",
        ),
        composite(
            "annotation_rating",
            "rating_candidate_in_the_set",
            "candidate_id",
            "generation_candidate",
        ),
    ]
