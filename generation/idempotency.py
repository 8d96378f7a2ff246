"""Writes of the API that are sent twice and done once.

Whoever sends `Idempotency-Key` gets, for a day, the stored answer to the same request again. The
work and its answer are stored in one transaction: a process that dies leaves neither, and the
request may be sent again. Refusals are not stored, since they did nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection, transaction
from django.http import QueryDict
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from generation.idempotency_rows import IdempotencyKey
from generation.problems import Conflict, Unfit

KEPT = timedelta(hours=24)
KEY = re.compile(r"[!-~]{1,100}")
HEADER = OpenApiParameter(
    "Idempotency-Key",
    type={"type": "string", "pattern": f"^{KEY.pattern}$"},
    location=OpenApiParameter.HEADER,
    description="Sent again with the same key and body within a day, the request is not done "
    "again: the stored answer comes, with `Idempotency-Replayed: true`.",
)


def once(handler: Callable[..., Response]) -> Callable[..., Response]:
    """For the `post` of a view: one transaction, done once for each key."""

    @wraps(handler)
    def wrapped(view: Any, request: Request, *args: Any, **kwargs: Any) -> Response:
        return done_once(request, view.person.pk, lambda: handler(view, request, *args, **kwargs))

    return wrapped


def done_once(request: Request, user: int, do: Callable[[], Response]) -> Response:
    """What `do` answers, in one transaction; where the key was heard before, the stored answer."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not KEY.fullmatch(key):
        raise Unfit("Idempotency-Key: 1 to 100 visible ASCII characters.")
    with transaction.atomic():
        return do() if key is None else _once(key, request, user, do)


def _once(key: str, request: Request, user: int, do: Callable[[], Response]) -> Response:
    asked, digest = f"{request.method} {request.path}"[:300], digest_of(request.data)
    _lock(user, key)
    rows = IdempotencyKey.objects.filter(user=user, key=key)
    rows.filter(created_at__lt=timezone.now() - KEPT).delete()
    row = rows.first()
    if row is None:
        response = do()
        _store(user, key, asked, digest, response)
        return response
    if (row.request, row.digest) != (asked, digest):
        raise Unfit("Idempotency-Key: it was used for another request. Give each its own.")
    headers = row.headers | {"Idempotency-Replayed": "true"}
    return Response(json.loads(row.body), status=row.status, headers=headers)


def _lock(user: int, key: str) -> None:
    """Until the transaction ends; Conflict where another request holds it."""
    number = int.from_bytes(hashlib.sha256(f"{user} {key}".encode()).digest()[:8], signed=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [number])
        (got,) = cursor.fetchone()
    if not got:
        said = "A request with this Idempotency-Key is being answered. Send it again in a moment."
        raise Conflict(said, code="in_progress", wait=1)


def _store(user: int, key: str, asked: str, digest: str, response: Response) -> None:
    kept = {name: response.headers[name] for name in ("Location",) if name in response.headers}
    IdempotencyKey.objects.create(
        user_id=user,
        key=key,
        request=asked,
        digest=digest,
        status=response.status_code,
        headers=kept,
        body=JSONRenderer().render(response.data).decode(),
    )


def digest_of(data: Any) -> str:
    """Of what was sent: JSON whatever its spaces, a form whatever its boundary."""
    found = hashlib.sha256()
    if not isinstance(data, QueryDict):
        text = json.dumps(data, sort_keys=True, cls=DjangoJSONEncoder)
        found.update(text.encode("utf-8", "surrogatepass"))
        return found.hexdigest()
    for name, values in sorted(data.lists()):
        for value in values:
            found.update(f"\n{name}=".encode("utf-8", "surrogatepass"))
            if isinstance(value, UploadedFile):
                for chunk in value.chunks():
                    found.update(chunk)
                value.seek(0)
            else:
                found.update(value.encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def forget_old() -> None:
    IdempotencyKey.objects.filter(created_at__lt=timezone.now() - KEPT).delete()
