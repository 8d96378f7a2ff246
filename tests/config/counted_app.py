"""A WSGI application for servers under test: it takes a while and says which process it is."""

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import django
from django.conf import settings

from config.balance import Balanced

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()


def slow(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    time.sleep(0.02)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]


application = Balanced(slow, settings.DATA_DIR)
