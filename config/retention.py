"""What is not kept for ever: a job takes it away once a day, by the RETAIN_ settings.

0 days keep it. What somebody judged, and the acts in the audit log, stay.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.sessions.models import Session
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models import Exists, ForeignObjectRel, OuterRef, Q, QuerySet
from django.utils import timezone

from annotation import exporting
from annotation.models import Export
from generation import audit, images, throttle
from generation.models import AuditEntry, Delivery, Image

BATCH = 1000


def clean_up(*, dry_run: bool = False) -> dict[str, int]:
    """How much of each was, or would be, taken away."""
    return {
        "addresses in the audit log": _addresses(dry_run),
        "ended sessions": _sessions(dry_run),
        "deliveries of webhooks": _deliveries(dry_run),
        "archives of exports": _exports(dry_run),
        "pictures that nothing uses": _pictures(dry_run),
        "counts of tries": throttle.sweep(dry_run=dry_run),
    }


def _before(days: int) -> Q | None:
    return Q(created_at__lt=timezone.now() - timedelta(days=days)) if days else None


def _addresses(dry_run: bool) -> int:
    if not settings.RETAIN_ADDRESS_DAYS:
        return 0
    oldest = timezone.now() - timedelta(days=settings.RETAIN_ADDRESS_DAYS)
    old = AuditEntry.objects.filter(at__lt=oldest).exclude(address=None)
    if dry_run:
        return old.count()
    with audit.erasing():
        return old.update(address=None)


def _sessions(dry_run: bool) -> int:
    ended = Session.objects.filter(expire_date__lt=timezone.now())
    alive = Session.objects.filter(session_key=OuterRef("session_key"))
    listed = UserSession.objects.filter(~Exists(alive.filter(expire_date__gte=timezone.now())))
    if dry_run:
        return ended.count()
    listed.delete()
    return ended.delete()[0]


def _deliveries(dry_run: bool) -> int:
    old = _before(settings.RETAIN_DELIVERY_DAYS)
    if old is None:
        return 0
    rows = Delivery.objects.filter(old).exclude(state=Delivery.State.WAITING)
    return rows.count() if dry_run else rows.delete()[0]


def _exports(dry_run: bool) -> int:
    old = _before(settings.RETAIN_EXPORT_DAYS)
    if old is None:
        return 0
    rows = Export.objects.filter(old).exclude(archive="")
    if dry_run:
        return rows.count()
    return sum(exporting.forget_archive(row, by=None) for row in rows)


def unused_pictures() -> QuerySet[Image]:
    """Those that no row of any table refers to."""
    rows = Image.objects.all()
    # Hidden ones, too: those whose related_name is “+”.
    for relation in Image._meta.get_fields(include_hidden=True):
        if isinstance(relation, ForeignObjectRel):
            model: Any = relation.related_model
            uses = {relation.field.name: OuterRef("pk")}
            rows = rows.filter(~Exists(model._default_manager.filter(**uses)))
    return rows


def _pictures(dry_run: bool) -> int:
    old = _before(settings.RETAIN_UNUSED_DAYS)
    if old is None:
        return 0
    rows = unused_pictures().filter(old)
    if dry_run:
        return rows.count()
    gone = 0
    while keys := list(rows.values_list("pk", flat=True)[:BATCH]):
        with transaction.atomic():
            # Asked again of the locked rows: whatever began to use one meanwhile keeps it.
            locked = list(unused_pictures().filter(pk__in=keys).select_for_update(of=("self",)))
            Image.objects.filter(pk__in=[row.pk for row in locked]).delete()
        for row in locked:
            if not Image.objects.filter(sha256=row.sha256).exists():
                for folder in ("images", *(f"{size}s" for size in images.SIDES)):
                    default_storage.delete(f"{folder}/{row.storage_key}")
        gone += len(locked)
        if not locked:
            break
    return gone
