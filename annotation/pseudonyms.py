"""Annotators outside of the pages: told apart, not named."""

from __future__ import annotations

from django.utils.crypto import salted_hmac


def pseudonym(user_id: int) -> str:
    """The same for a person everywhere; the salt is the installation's secret key."""
    # The name is of when this stood elsewhere: another one would be another pseudonym.
    return salted_hmac("annotation.datasets", str(user_id), algorithm="sha256").hexdigest()[:16]
