"""The bucket that tests keep media in: moto's server, or the one that S3_* name."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.test.utils import override_settings

from config import storage

BUCKET = "oneloop"


def is_named() -> bool:
    return bool(os.environ.get("S3_BUCKET"))


@contextmanager
def server() -> Iterator[str]:
    """The address of an object store: moto's, of this process, unless S3_ENDPOINT_URL names one."""
    if is_named():
        yield os.environ["S3_ENDPOINT_URL"]
        return
    from moto.server import ThreadedMotoServer

    here = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    here.start()
    try:
        host, port = here.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        here.stop()


@contextmanager
def media(endpoint_url: str, **changes: Any) -> Iterator[None]:
    """Media in a bucket below a prefix of its own, for this process and those it starts."""
    wanted: dict[str, Any] = {
        "bucket": os.environ.get("S3_BUCKET", BUCKET),
        "endpoint_url": endpoint_url,
        "region": os.environ.get("S3_REGION", "us-east-1"),
        "access_key": os.environ.get("S3_ACCESS_KEY_ID", "key"),
        "secret_key": os.environ.get("S3_SECRET_ACCESS_KEY", "secret"),
        "prefix": f"test-{uuid.uuid4().hex[:12]}",
        "addressing_style": "path",
        "timeout_seconds": 30,
    }
    wanted |= changes
    store = {"BACKEND": "config.storage.ObjectStore", "OPTIONS": storage.options(**wanted)}
    with override_settings(STORAGES={**settings.STORAGES, "default": store}):
        yield


def make_bucket() -> None:
    """A server that is new has none."""
    from django.core.files.storage import default_storage

    default_storage.make_bucket()  # type: ignore[attr-defined]


def environment() -> dict[str, str]:
    """The variables that give a process this one's media."""
    chosen = settings.STORAGES["default"]
    if chosen["BACKEND"] != "config.storage.ObjectStore":
        return {"S3_BUCKET": "", "MEDIA_ROOT": str(settings.MEDIA_ROOT)}
    options = chosen["OPTIONS"]
    return {
        "S3_BUCKET": options["bucket_name"],
        "S3_ENDPOINT_URL": options["endpoint_url"],
        "S3_REGION": options["region_name"],
        "S3_ACCESS_KEY_ID": options["access_key"],
        "S3_SECRET_ACCESS_KEY": options["secret_key"],
        "S3_PREFIX": options["location"],
        "S3_ADDRESSING_STYLE": "path",
    }
