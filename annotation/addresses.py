"""Addresses of the labelling page, which has twenty of them and is made for every set.

Asking the URL resolver for each took as long as a query; here it is asked once per name.
"""

from __future__ import annotations

from functools import cache

from django.urls import get_script_prefix, reverse

# Stand for the argument, one of each kind that these addresses take.
NUMBER, HASH = 987654321987654321, "0123456789abcdef" * 4


def address(name: str, value: int | str | None = None) -> str:
    """As `reverse(name, args=[value])`, for a name that takes a number or a hash, or nothing."""
    if value is None:
        return _parts(name, None, get_script_prefix())[0]
    before, after = _parts(name, NUMBER if isinstance(value, int) else HASH, get_script_prefix())
    return f"{before}{value}{after}"


@cache
def _parts(name: str, sample: int | str | None, prefix: str) -> list[str]:
    """What stands before and behind the argument."""
    return reverse(name, args=[] if sample is None else [sample]).split(str(sample))
