"""Guides in a few plain lines for the seeded dimensions; questions and queries stay as they are.

Only where the newest wording is still the seed's of before: an admin's words are kept.
"""

from typing import Any

from django.db import migrations

from modeling.starter.taxonomy import DIMENSIONS

BEFORE = {
    "text_alignment": "Identity, attributes and position of what was asked for. A well drawn picture of something else is a bad match; a rough picture of the right thing is a better one.",
    "consistency": "Colour, texture and light continue across the mask's edge without a seam. Judge the join alone, not what was drawn.",
    "structure": "Contours close, parts hang together, perspective and topology hold. Broken, doubled or half-drawn forms are bad structure, whatever the prompt said.",
    "aesthetics": "Overall appeal: composition, colour, cleanness, realism. Noise, blur and stray marks count against a picture.",
    "removal_quality": "The target is gone, the area is clean and continues its surroundings, and nothing unintended appeared in its place.",
    "text_rendering": "The asked characters, all of them, in order and legible. A wrong or missing character is worse than an uneven one.",
    "style_consistency": "Medium, palette, stroke and rendering style match the rest of the picture.",
    "texture_consistency": "Grain, pattern and surface continue across the mask's edge.",
    "artifacts": "Grids, halos, colour fringes, repeated patches, other machine-made traces.",
    "overall": "The picture that would rather be used as it is, everything weighed together.",
}


def forwards(apps: Any, schema_editor: Any) -> None:
    wordings = apps.get_model("annotation", "Wording").objects
    for slug, before in BEFORE.items():
        newest = wordings.filter(dimension__slug=slug).order_by("-version").first()
        seed = DIMENSIONS[slug]
        if newest is None or (newest.question, newest.query, newest.guideline) != (
            seed["question"],
            seed["query"],
            before,
        ):
            continue
        wordings.create(
            dimension=newest.dimension,
            version=newest.version + 1,
            question=newest.question,
            query=newest.query,
            guideline=seed["guideline"],
        )


class Migration(migrations.Migration):
    dependencies = [
        ("modeling", "0002_seed_the_taxonomy"),
        ("annotation", "0005_the_database_keeps_full_items"),
    ]

    operations = [migrations.RunPython(forwards, migrations.RunPython.noop)]
