"""What the quality page shows: figures with names, signs to look at, charts and tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from math import isnan
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import User
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotation import agreement, annotators, charts, figures
from annotation.aggregation import reliability_by_person
from annotation.agreement import Bias, Estimate
from annotation.annotators import Person, Share
from annotation.charts import Chart
from annotation.figures import DAY, HOUR, WEEK, Agreement, Rated, Spell
from annotation.judged import Filters, Judged
from annotation.models import Aggregation, Campaign, Dimension, Seat
from generation.access import may
from generation.models import Role, Task

if TYPE_CHECKING:
    from collections.abc import Iterable

Names = Callable[[int], str]
HOURS_SHOWN = 72
DAYS_SHOWN = 31
# From how many answers on a figure is a sign of anything.
ENOUGH = 10


def names_for(viewer: User, campaign: Campaign, people: Iterable[int]) -> Names:
    """Managers see names; reviewers see names that tell people apart without naming them."""
    if not may(viewer, campaign.project, Role.MANAGER):
        return lambda user: _("Annotator %s") % pseudonym(campaign, user)
    known = dict(User.objects.filter(pk__in=list(people)).values_list("pk", "username"))
    return lambda user: known.get(user, str(user))


def pseudonym(campaign: Campaign, user: int) -> str:
    digest = salted_hmac("annotation.reviewers", f"{campaign.pk}-{user}", algorithm="sha256")
    return digest.hexdigest()[:5]


# People -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A person in the table."""

    person: Person
    name: str
    seat: Seat | None
    reliability: float | None
    signs: list[str]

    @property
    def paused(self) -> bool:
        return self.seat is not None and self.seat.paused_at is not None


SORTS: dict[str, Callable[[Line], Any]] = {
    "name": lambda line: line.name.lower(),
    "turns": lambda line: line.person.turns,
    "gold": lambda line: _missing_last(line.person.gold.value),
    "attention": lambda line: line.person.failed_attention,
    "repeats": lambda line: _missing_last(line.person.repeats.value),
    "others": lambda line: _missing_last(line.person.others.value),
    "reliability": lambda line: _missing_last(line.reliability),
    "bias": lambda line: _missing_last(line.person.bias.p_value),
    "seconds": lambda line: _missing_last(line.person.seconds),
    "same": lambda line: _missing_last(line.person.no_difference.value),
    "cannot": lambda line: _missing_last(line.person.cannot_judge.value),
    "signs": lambda line: -len(line.signs),
}


def _missing_last(value: float | None) -> tuple[bool, float]:
    missing = value is None or isnan(value)
    return missing, 0.0 if value is None or missing else value


def lines(campaign: Campaign, judged: Judged, names: Names, *, sort: str = "signs") -> list[Line]:
    seats = {seat.user_id: seat for seat in Seat.objects.filter(campaign=campaign)}
    aggregation = Aggregation.objects.filter(campaign=campaign).first()
    reliability = reliability_by_person(aggregation)
    people = annotators.people(judged, campaign)
    found = [
        Line(
            person,
            names(person.user),
            seats.get(person.user),
            reliability.get(person.user),
            signs(person, people, campaign),
        )
        for person in people
    ]
    key = SORTS.get(sort.lstrip("-"), SORTS["signs"])
    found.sort(key=lambda line: line.name.lower())
    found.sort(key=key, reverse=sort.startswith("-"))
    return found


def signs(person: Person, people: list[Person], campaign: Campaign) -> list[str]:
    """What about a person's work deserves a look, in a few words each."""
    found = []
    wanted = 0.6 if campaign.pause_below is None else campaign.pause_below
    if person.gold.n >= ENOUGH and person.gold.value < wanted:
        found.append(_("known answers"))
    if person.failed_attention:
        found.append(
            ngettext("%d failed check", "%d failed checks", person.failed_attention)
            % person.failed_attention
        )
    # Bonferroni: among many people one prefers a place by chance.
    if person.bias.p_value < 0.05 / len(people):
        place = max(range(len(person.bias.picks)), key=lambda p: _excess(person.bias, p))
        found.append(_("prefers place %d") % (place + 1))
    if person.repeats.n >= ENOUGH and person.repeats.value < 0.6:
        found.append(_("contradicts own answers"))
    if person.speed_z < -2:
        found.append(_("very fast"))
    elif person.speed_z > 2:
        found.append(_("very slow"))
    if _below_others(person, people):
        found.append(_("differs from others"))
    if person.no_difference.n >= 2 * ENOUGH and person.no_difference.value > 0.5:
        found.append(_("mostly no difference"))
    if person.cannot_judge.n >= 2 * ENOUGH and person.cannot_judge.value > 0.3:
        found.append(_("often can’t judge"))
    return found


def _excess(bias: Bias, place: int) -> float:
    return bias.picks[place] - bias.expected[place]


def _below_others(person: Person, people: list[Person]) -> bool:
    rest = Share(
        sum(other.others.points for other in people if other is not person),
        sum(other.others.n for other in people if other is not person),
    )
    return person.others.n >= 2 * ENOUGH and person.others.value < rest.value - 0.2


# Agreement --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AgreementLine:
    """One row of the table; no task and no dimension is all of them together."""

    task: Task | None
    dimension: Dimension | None
    figures: Agreement


def agreement_lines(judged: Judged) -> list[AgreementLine]:
    tasks, dimensions = Task.objects.in_bulk(), Dimension.objects.in_bulk()
    return [
        AgreementLine(
            None if found.task is None else tasks[found.task],
            None if found.dimension is None else dimensions[found.dimension],
            found,
        )
        for found in figures.agreements(judged)
    ]


@dataclass(frozen=True)
class RatedLine:
    """How well ratings agree; without a dimension it is usable yes/no."""

    task: Task
    dimension: Dimension | None
    figures: Rated


def rated_lines(campaign: Campaign, filters: Filters) -> list[RatedLine]:
    found = figures.rating_agreements(campaign, filters)
    tasks = Task.objects.in_bulk([rated.task for rated in found])
    dimensions = Dimension.objects.in_bulk([r.dimension for r in found if r.dimension is not None])
    return [
        RatedLine(
            tasks[rated.task],
            None if rated.dimension is None else dimensions[rated.dimension],
            rated,
        )
        for rated in found
    ]


# Charts -----------------------------------------------------------------------------------------


def local_offset() -> float:
    """Seconds that local time is ahead of UTC, so that days begin at local midnight."""
    offset = timezone.localtime().utcoffset()
    return offset.total_seconds() if offset else 0.0


def _moment(seconds: float) -> datetime:
    return timezone.localtime(datetime.fromtimestamp(seconds, tz=timezone.get_default_timezone()))


def percent(share: float) -> str:
    return "–" if isnan(share) else f"{100 * share:.0f} %"


def interval(found: Estimate) -> str:
    if isnan(found.low):
        return ""
    return f"{100 * found.low:.0f}–{100 * found.high:.0f} %"


def hourly_chart(judged: Judged, download: str) -> Chart | None:
    """Labels per hour over the last 72 hours before the last label."""
    hours = dict(figures.hourly(judged, local_offset()))
    if not hours:
        return None
    last = max(hours)
    span = min(HOURS_SHOWN, int((last - min(hours)) / HOUR) + 1)
    starts = [last - HOUR * back for back in reversed(range(max(span, 12)))]
    values = [hours.get(start, 0) for start in starts]
    busiest = max(starts, key=lambda start: hours.get(start, 0))
    names = [date_format(_moment(start), _("j M H:i")) for start in starts]
    return charts.bar_chart(
        title=_("%(n)d labels in the busiest hour, %(when)s")
        % {"n": hours[busiest], "when": date_format(_moment(busiest), _("j M H:i"))},
        unit=_("labels per hour · last %(hours)d hours · n = %(n)d")
        % {"hours": len(starts), "n": sum(values)},
        head=[_("Hour"), _("Labels")],
        names=names,
        values=values,
        shown=[str(value) for value in values],
        rows=[[name, str(value)] for name, value in zip(names, values, strict=True) if value],
        ticks=3,
        download=download,
    )


def spells(judged: Judged) -> tuple[list[Spell], bool]:
    """Agreement per day, or per week where a campaign lasts longer than a month."""
    if not len(judged.at):
        return [], False
    weekly = float(judged.at.max() - judged.at.min()) > DAYS_SHOWN * DAY
    # 1 January 1970 was a Thursday: weeks begin on Monday three days before.
    offset = local_offset() + (3 * DAY if weekly else 0)
    found = figures.over_time(judged, WEEK if weekly else DAY, offset)
    return [spell for spell in found if spell.pairwise.known], weekly


def agreement_chart(judged: Judged, download: str) -> Chart | None:
    found, weekly = spells(judged)
    if not found:
        return None
    names = [date_format(_moment(spell.start), _("j M")) for spell in found]
    points = [(s.pairwise.value, s.pairwise.low, s.pairwise.high) for s in found]
    unit = _("share of pairs of people with the same best, 95 %% interval · per %(spell)s") % {
        "spell": _("week") if weekly else _("day")
    }
    return charts.band_chart(
        title=_trend(found),
        unit=f"{unit} · n = {sum(spell.pairwise.n for spell in found)}",
        head=[
            _("From"),
            _("Same best"),
            # xgettext:no-python-format
            _("95 % interval"),
            "n",
        ],
        names=names,
        points=points,
        rows=[
            [name, percent(s.pairwise.value), interval(s.pairwise), str(s.pairwise.n)]
            for name, s in zip(names, found, strict=True)
        ],
        download=download,
    )


def _trend(found: list[Spell]) -> str:
    first, last = found[0].pairwise, found[-1].pairwise
    values = {"first": percent(first.value), "last": percent(last.value)}
    if len(found) == 1:
        return _("People agree on %(last)s of pairs") % values
    if last.low > first.high:
        return _("Agreement rose from %(first)s to %(last)s") % values
    if last.high < first.low:
        return _("Agreement fell from %(first)s to %(last)s") % values
    return _("Agreement is about the same: %(first)s, then %(last)s") % values


def campaign_bias(judged: Judged) -> Bias:
    place, shown = judged.place, judged.shown[judged.row]
    picked = place >= 0
    return agreement.position_bias(judged.row[picked], place[picked], shown[picked])


def bias_chart(bias: Bias, download: str = "") -> Chart | None:
    if not bias.n:
        return None
    even = [e / bias.n for e in bias.expected]
    names = [_("place %d") % (place + 1) for place in range(len(bias.picks))]
    one_size = max(bias.expected) - min(bias.expected) < 1e-9
    return charts.bar_chart(
        title=bias_title(bias),
        unit=_("share of best picks by place from the left · n = %(n)d") % {"n": bias.n}
        + (_(" · dashed: an even hand") if one_size else ""),
        head=[_("Place"), _("Picks"), _("Share"), _("Even hand")],
        names=names,
        values=bias.shares,
        shown=[percent(share) for share in bias.shares],
        rows=[
            [name, str(picks), percent(share), percent(fair)]
            for name, picks, share, fair in zip(names, bias.picks, bias.shares, even, strict=True)
        ],
        level=even[0] if one_size else None,
        ticks=8,
        percent=True,
        download=download,
    )


def bias_title(bias: Bias) -> str:
    if isnan(bias.p_value):
        return _("Too few picks to tell whether a place is preferred")
    p = _("p < 0.001") if bias.p_value < 0.001 else _("p = %.2g") % bias.p_value
    if not bias.p_value < 0.05:
        return _("No place is preferred (%s)") % p
    place = max(range(len(bias.picks)), key=lambda at: _excess(bias, at))
    return _("Place %(place)d is picked more often: %(share)s instead of %(even)s (%(p)s)") % {
        "place": place + 1,
        "share": percent(bias.shares[place]),
        "even": percent(bias.expected[place] / bias.n),
        "p": p,
    }
