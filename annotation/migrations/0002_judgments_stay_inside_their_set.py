"""Composite foreign keys: a judgment's set is its assignment's, and its best and worst lie in that set."""

from django.db import migrations


def composite(table: str, name: str, column: str, target: str) -> migrations.RunSQL:
    return migrations.RunSQL(
        f'ALTER TABLE "{table}" ADD CONSTRAINT "{name}" FOREIGN KEY ("{column}", "set_id") '
        f'REFERENCES "{target}" ("id", "set_id") DEFERRABLE INITIALLY DEFERRED',
        f'ALTER TABLE "{table}" DROP CONSTRAINT "{name}"',
    )


class Migration(migrations.Migration):
    dependencies = [("annotation", "0001_initial"), ("generation", "0001_initial")]

    operations = [
        composite(
            "annotation_assignment", "assignment_item_has_the_set", "item_id", "annotation_item"
        ),
        composite(
            "annotation_judgment",
            "judgment_assignment_has_the_set",
            "assignment_id",
            "annotation_assignment",
        ),
        composite(
            "annotation_judgment", "judgment_best_in_the_set", "best_id", "generation_candidate"
        ),
        composite(
            "annotation_judgment", "judgment_worst_in_the_set", "worst_id", "generation_candidate"
        ),
    ]
