"""What people and reward models are asked of pictures that were made from the prompt alone."""

from typing import Any

from django.db import migrations

from modeling.taxonomy import seed


def forwards(apps: Any, schema_editor: Any) -> None:
    seed(apps)


class Migration(migrations.Migration):
    dependencies = [
        ("modeling", "0003_write_longer_guides"),
        ("annotation", "0010_add_sets_in_the_background"),
        ("generation", "0006_masks_lie_on_sources"),
    ]

    operations = [migrations.RunPython(forwards, migrations.RunPython.noop)]
