from typing import Any

from django.db import migrations

from modeling.taxonomy import seed


def forwards(apps: Any, schema_editor: Any) -> None:
    seed(apps)


class Migration(migrations.Migration):
    dependencies = [
        ("modeling", "0001_initial"),
        ("annotation", "0002_judgments_stay_inside_their_set"),
        ("generation", "0001_initial"),
    ]

    operations = [migrations.RunPython(forwards, migrations.RunPython.noop)]
