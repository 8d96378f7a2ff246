"""Adding many sets to a campaign: a job that shows how far it is and can be cancelled.

Each batch is committed together with the progress it makes, under the job's lease. What a killed
worker leaves undone another one does: sets that are in the queue already are passed over.
"""

from __future__ import annotations

import random
from itertools import chain, islice
from threading import Event
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.http import QueryDict
from django.utils.translation import gettext as _

from annotation.campaigns import add_in_batches, ready_sets, tasks_of
from annotation.contents_forms import contents_form
from annotation.errors import Refused
from annotation.models import Addition, Campaign
from generation import audit
from generation.models import Verb
from generation.ownership import LeaseLost

if TYPE_CHECKING:
    from django.contrib.auth.models import User

AT_ONCE = 2000  # sets that are added while the browser waits


def takes_a_while(campaign: Campaign) -> bool:
    sets = ready_sets(tasks_of(campaign), project=campaign.project)
    return sets[: AT_ONCE + 1].count() > AT_ONCE


def order(*, campaign: Campaign, about: QueryDict, by: User) -> Addition:
    """Have what the form `about` chooses added by a worker."""
    from annotation.jobs import add_to_campaign

    said = {name: values for name, values in about.lists() if name != "csrfmiddlewaretoken"}
    newest = campaign.items.order_by("-pk").values_list("pk", flat=True).first() or 0
    row = Addition.objects.create(campaign=campaign, about=said, ordered_by=by, newest=newest)
    # Where the broker is away, beat rings once it is back.
    transaction.on_commit(lambda: add_to_campaign.delay(row.pk), robust=True)
    return row


def latest(campaign: Campaign) -> Addition | None:
    return campaign.additions.order_by("-pk").first()


def run(row: Addition) -> None:
    """Do it, or what an earlier attempt left of it."""
    if not row.claim():
        return
    try:
        with row.heartbeat() as lost:
            _add(row, lost)
    except LeaseLost:
        return
    except Refused as error:
        row.fail(error.message)
    except Exception as error:
        if row.may_pass(error):
            raise
        said = _("Adding broke off: %(error)s. Add them again: nothing is added twice.")
        row.fail(said % {"error": error})
        raise


def _add(row: Addition, lost: Event) -> None:
    campaign = row.campaign
    said = QueryDict(mutable=True)
    for name, values in row.about.items():
        said.setlist(name, values)
    form = contents_form(campaign, said)
    if not form.is_valid():
        raise Refused(_("What was chosen is no longer there. Choose again; nothing was added."))
    row.renew(total=form.count(campaign), progress=0)
    looked_at, added = 0, row.added
    # The first entry is read outside of a transaction: the cursor then outlives each of them.
    entries = iter(form.entries(campaign))
    first = list(islice(entries, 1))
    batches = add_in_batches(campaign, chain(first, entries), random.SystemRandom())
    while True:
        with transaction.atomic():
            # The row is locked first: whoever lost it adds nothing.
            row.renew()
            found = next(batches, None)
            if found is None:
                row.finish(added=added)
                _note(row, added)
                return
            looked_at, added = looked_at + found[0], added + found[1]
            row.renew(progress=looked_at, added=added)
        if lost.is_set():
            raise LeaseLost(f"addition {row.pk} was cancelled")


def _note(row: Addition, added: int) -> None:
    after: dict[str, Any] = {"sets": added}
    audit.record(actor=row.ordered_by, verb=Verb.SETS_ADDED, thing=row.campaign, after=after)
