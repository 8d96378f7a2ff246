"""Fills an empty Label Studio with people and tasks; run by its own Python, in its own directory.

`python label_studio_seed.py PEOPLE TASKS SLUG…` prints the project and the people's tokens as JSON.
"""

# mypy: ignore-errors

import json
import os
import sys

import django

sys.path.insert(0, os.getcwd())
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "core.settings.label_studio")
django.setup()

from organizations.models import Organization  # noqa: E402
from projects.models import Project  # noqa: E402
from rest_framework.authtoken.models import Token  # noqa: E402
from tasks.models import Task  # noqa: E402
from users.models import User  # noqa: E402

people, tasks, *slugs = sys.argv[1:]
choices = "".join(f'<Choice value="{n}"/>' for n in "1234")
questions = "".join(
    f'<Choices name="{kind}-{slug}" toName="source" choice="single">{choices}</Choices>'
    for slug in slugs
    for kind in ("best", "worst")
)
pictures = "".join(f'<Image name="image-{n}" value="$image{n}"/>' for n in "1234")

admin = User.objects.create_user(email="admin@example.org", password="label-studio-load")
organization = Organization.create_organization(created_by=admin, title="Load")
organization.jwt.legacy_api_tokens_enabled = True
organization.jwt.save()
project = Project.objects.create(
    title="Load",
    created_by=admin,
    organization=organization,
    label_config=f'<View><Image name="source" value="$source"/>{pictures}{questions}</View>',
    maximum_annotations=2,
)
tokens = []
for number in range(int(people)):
    user = User.objects.create_user(email=f"annotator{number}@example.org", password="!")
    organization.add_user(user)
    user.active_organization = organization
    user.save()
    tokens.append(Token.objects.get_or_create(user=user)[0].key)
Task.objects.bulk_create(
    (
        Task(
            project=project,
            overlap=2,
            data={"source": "/s.png"} | {f"image{n}": f"/{number}-{n}.png" for n in "1234"},
        )
        for number in range(int(tasks))
    ),
    batch_size=1000,
)
print(json.dumps({"campaign": project.pk, "people": tokens}))
