"""What people and the program find on the site: rows that are made before the first kill."""

from __future__ import annotations

import random
from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth.models import User

from config.bench import world as worlds
from config.bench.cycle import session_of, slugs_of
from config.bench.world import World
from generation import policies, tokens
from generation.models import Membership, Role, Scope, Source, Task, default_project
from generation.webhook_rows import Endpoint, Topic
from modeling import starter_project

TOKEN = "c" * 32  # of the forms; the cookie and the header only have to be alike
SOURCES = 6


@dataclass(frozen=True)
class Ground:
    world: World
    slugs: list[str]
    clerk: User
    token: str
    sources: list[int]

    def headers(self, place: int) -> dict[str, str]:
        """Those of the browser of one annotator."""
        session = session_of(self.world, place)
        cookies = {settings.SESSION_COOKIE_NAME: session, settings.CSRF_COOKIE_NAME: TOKEN}
        return {
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
            "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()),
            "X-CSRFToken": TOKEN,
        }


def make(*, people: int, items: int, listener: str) -> Ground:
    world = worlds.make_world(items=items, people=people)
    task = Task.objects.get(slug="fill")
    starter_project.plan_for(task)
    starter_project.add_block(task, range(SOURCES))
    drawn = Source.objects.filter(external_id__startswith="starter/").order_by("pk")
    policy = policies.register(
        name=starter_project.POLICY_NAME,
        location=str(starter_project.WEIGHTS / "policy"),
        max_pixels=starter_project.MAX_PIXELS,
    )
    policies.activate(policy)
    clerk = User.objects.create_user(f"clerk {random.SystemRandom().randrange(10**9)}")
    Membership.objects.create(project_id=default_project(), user=clerk, role=Role.ADMIN)
    _row, token = tokens.make(user=clerk, name="chaos", scopes=Scope.values)
    Endpoint.objects.create(project_id=default_project(), url=listener, topics=[Topic.RUN])
    worlds.analyse()
    numbers = list(drawn.values_list("pk", flat=True))
    return Ground(world, slugs_of(world.campaign), clerk, token, numbers)
