import os
import socket
from typing import Any

import django
from celery import Celery
from celery.signals import (
    beat_init,
    before_task_publish,
    celeryd_after_setup,
    celeryd_init,
    heartbeat_sent,
    setup_logging,
    task_postrun,
    task_prerun,
    worker_process_init,
)

from generation import trail

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("oneloop")
app.config_from_object("django.conf:settings", namespace="CELERY")
# "Task" is a domain word here, so the modules that hold Celery's tasks are called jobs.
app.autodiscover_tasks(related_name="jobs")


@celeryd_init.connect
def refuse_unsafe(**_: Any) -> None:
    django.setup()
    from config import safety

    safety.refuse_unsafe()


@celeryd_after_setup.connect
def begin_beating(sender: str, instance: Any, **_: Any) -> None:
    from config import heartbeats

    queues = list(instance.app.amqp.queues.consume_from)
    heartbeats.begin(name=sender, kind="worker", queues=queues)


@heartbeat_sent.connect
def say_that_the_loop_turns(**_: Any) -> None:
    from config import heartbeats

    heartbeats.heard()


@beat_init.connect
def begin_ticking(**_: Any) -> None:
    from config import heartbeats

    heartbeats.begin(name=f"beat@{socket.gethostname()}", kind="beat")


@worker_process_init.connect
def begin_to_give_connections_back(**_: Any) -> None:
    """Jobs of a spawned process, too, leave no connection to the next one.

    Celery's own part for Django is told of a worker by `worker_init`, which a spawned process never
    hears. Its connection stayed for ever; once the database had restarted, every job failed.
    """
    task_prerun.connect(give_connections_back)
    task_postrun.connect(give_connections_back)


def give_connections_back(**_: Any) -> None:
    from django.db import connections

    connections.close_all()


# Lines of the log ---------------------------------------------------------------------------------


@setup_logging.connect
def leave_logging_to_django(**_: Any) -> None:
    """With a receiver here Celery sets nothing up: LOGGING holds for every process."""


@before_task_publish.connect
def hand_the_trail_on(headers: dict[str, Any], **_: Any) -> None:
    if request_id := trail.current().get("request_id"):
        headers["request_id"] = request_id


@task_prerun.connect
def take_the_trail_up(task_id: str, task: Any, **_: Any) -> None:
    given = {"job_id": task_id, "request_id": getattr(task.request, "request_id", None)}
    trail.enter(**{name: value for name, value in given.items() if value})


@task_postrun.connect
def leave_the_trail(**_: Any) -> None:
    trail.clear()
