"""Telling others of events: `send` writes a message per endpoint, a worker delivers it.

A message is JSON, `{"id", "event", "created_at", "project", "data"}`, signed with the endpoint's
secret: `OneLoop-Signature: t=<seconds>,v1=<hex of HMAC-SHA256 over "<seconds>.<body>">`. Whoever
receives it compares the signature, refuses an old `t`, and takes each `id` once. Any answer from
200 to 299 counts as delivered; otherwise it is sent again, later and later, for about a day.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from generation import outside
from generation.models import Project
from generation.ownership import Job
from generation.webhook_rows import Delivery, Endpoint, Topic

# For whoever receives messages.
EXAMPLE = """\
import hashlib, hmac

def genuine(header: str, body: bytes, secret: str) -> bool:
    parts = dict(part.split("=", 1) for part in header.split(","))
    signed = hmac.new(secret.encode(), parts["t"].encode() + b"." + body, hashlib.sha256)
    return hmac.compare_digest(signed.hexdigest(), parts["v1"])
"""
SIGNATURE = "OneLoop-Signature"
LEASE = timedelta(minutes=2)
# After the first attempt, the second, …; then it has failed.
PAUSES = [timedelta(seconds=s) for s in (10, 60, 300, 1800, 7200, 21_600, 43_200)]
TEST = "ping"


def send(event: str, payload: Mapping[str, Any], *, project: Project | int | None = None) -> int:
    """Tell whoever listens; how many messages that makes. They go with the caller's transaction.

    The event's first word is its topic: "round.step", "gate.shut", "campaign.opened". What belongs
    to no project, as rounds do, is told to the endpoints of all.
    """
    topic = event.partition(".")[0]
    if topic not in Topic.values:
        raise ValueError(f"'{event}' has none of the topics {', '.join(Topic.values)}")
    listening = Endpoint.objects.filter(active=True, topics__contains=[topic])
    if project is not None:
        listening = listening.filter(project=project)
    endpoints = list(listening.select_related("project"))
    _write(endpoints, event, payload)
    return len(endpoints)


def send_run(run: Job, kind: str, more: Mapping[str, Any]) -> None:
    """A training or a generation has ended."""
    payload = {"id": run.pk, "kind": kind, "state": run.state, "error": run.error or None}
    send(f"run.{run.state}", {**payload, **more})


def send_test(endpoint: Endpoint) -> Delivery:
    return _write([endpoint], TEST, {"url": endpoint.url})[0]


def _write(endpoints: list[Endpoint], event: str, payload: Mapping[str, Any]) -> list[Delivery]:
    now = timezone.now()
    rows = []
    for endpoint in endpoints:
        key = uuid.uuid4()
        body = {
            "id": str(key),
            "event": event,
            "created_at": now,
            "project": endpoint.project.slug,
            "data": payload,
        }
        text = json.dumps(body, cls=DjangoJSONEncoder, ensure_ascii=False)
        rows.append(Delivery(endpoint=endpoint, key=key, event=event, body=text))
    with transaction.atomic():
        made = Delivery.objects.bulk_create(rows)
        for row in made:
            _ring(row.pk)
    return made


def _ring(pk: int) -> None:
    from generation.jobs import deliver

    # Where the broker is away, beat rings once it is back.
    transaction.on_commit(lambda: deliver.delay(pk), robust=True)


def sign(secret: str, body: bytes, seconds: int) -> str:
    """The header's value."""
    signed = hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256)
    return f"t={seconds},v1={signed.hexdigest()}"


def deliver(row: Delivery) -> bool:
    """Send a message that is due; False where it is another's, or not due any more."""
    if not row.claim(LEASE):
        return False
    body = row.body.encode()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "OneLoop",
        "OneLoop-Event": row.event,
        "OneLoop-Id": str(row.key),
        SIGNATURE: sign(row.endpoint.secret, body, int(timezone.now().timestamp())),
    }
    code, error = None, ""
    try:
        code = outside.post(row.endpoint.url, body, headers)
    except outside.OutsideError as reason:
        error = str(reason)
    except Exception as reason:  # a bug must not leave the message without a word
        error = f"{type(reason).__name__}: {reason}"
    if code is not None and not 200 <= code < 300:
        error = _("Answered with %(code)d.") % {"code": code}
        if 300 <= code < 400:
            error = _("Answered with %(code)d: redirects are not followed.") % {"code": code}
    _record(row, code, error[:300])
    return True


def _record(row: Delivery, code: int | None, error: str) -> None:
    now = timezone.now()
    values: dict[str, Any] = {"response_code": code, "error": error}
    if not error:
        values |= {"state": Delivery.State.DELIVERED, "ended_at": now}
    elif row.attempts > len(PAUSES):
        values |= {"state": Delivery.State.FAILED, "ended_at": now}
    else:
        values["due_at"] = now + PAUSES[row.attempts - 1]
    # Only for this attempt: somebody may have asked for another one meanwhile.
    mine = Delivery.objects.filter(pk=row.pk, state=Delivery.State.WAITING, attempts=row.attempts)
    mine.update(**values)
    row.refresh_from_db()


def again(row: Delivery) -> None:
    """Send it once more now, whatever became of it, with all its attempts before it."""
    Delivery.objects.filter(pk=row.pk).update(
        state=Delivery.State.WAITING, attempts=0, due_at=timezone.now(), ended_at=None
    )
    _ring(row.pk)
