"""The queues that jobs are sent to, and how many wait in each."""

from __future__ import annotations

from amqp.exceptions import NotFound
from django.conf import settings
from kombu.connection import Connection
from kombu.exceptions import ChannelError


def names() -> list[str]:
    routed = [route["queue"] for route in settings.CELERY_TASK_ROUTES.values()]
    return list(dict.fromkeys([settings.CELERY_TASK_DEFAULT_QUEUE, *routed]))


def depths(seconds: float = 2) -> dict[str, int]:
    """Asked of the broker, whichever it is; a queue that nobody has used yet is empty."""
    found = {}
    with Connection(settings.CELERY_BROKER_URL, connect_timeout=seconds) as broker:
        broker.ensure_connection(max_retries=1, interval_start=0.1, timeout=seconds)
        for name in names():
            channel = broker.channel()
            try:
                declared = channel.queue_declare(queue=name, passive=True)
                found[name] = int(declared.message_count)
            except (ChannelError, NotFound):
                found[name] = 0
            finally:
                channel.close()
    return found
