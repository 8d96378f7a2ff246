"""What there was before projects belongs to one called “Main”, and so does everyone."""

from django.conf import settings
from django.db import migrations


def put_in_main(apps, schema_editor):
    Source = apps.get_model("generation", "Source")
    user_model = apps.get_model(*settings.AUTH_USER_MODEL.split("."))
    if not Source.objects.exists() and not user_model.objects.exists():
        return
    main, _ = apps.get_model("generation", "Project").objects.get_or_create(
        slug="main", defaults={"name": "Main"}
    )
    Source.objects.filter(project=None).update(project=main)
    membership = apps.get_model("generation", "Membership")
    membership.objects.bulk_create(
        [
            membership(project=main, user=user, role="manager" if user.is_staff else "annotator")
            for user in user_model.objects.all()
        ],
        ignore_conflicts=True,
    )


class Migration(migrations.Migration):
    dependencies = [("generation", "0002_projects")]

    operations = [migrations.RunPython(put_in_main, migrations.RunPython.noop)]
