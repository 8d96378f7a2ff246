from __future__ import annotations

from math import isnan

from django import template

from annotation import quality_page

register = template.Library()


@register.filter
def percent(share: float | None) -> str:
    return "–" if share is None else quality_page.percent(share)


@register.filter
def figure(value: float | None) -> str:
    """Two places, with a dash where there is nothing to say."""
    return "–" if value is None or isnan(value) else f"{value:.2f}"


@register.filter
def p_value(value: float) -> str:
    if isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.2g}"
