"""Annotators outside of the pages: told apart, not named."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from django.utils.crypto import salted_hmac


def pseudonym(user_id: int) -> str:
    """The same for a person everywhere; the salt is the installation's secret key."""
    # The name is of when this stood elsewhere: another one would be another pseudonym.
    return salted_hmac("annotation.datasets", str(user_id), algorithm="sha256").hexdigest()[:16]


def salted(salt: str) -> Callable[[int], str]:
    """Pseudonyms that are the same where the salt is, and mean nothing to who does not know it."""

    def name(user_id: int) -> str:
        return hmac.digest(salt.encode(), str(user_id).encode(), "sha256").hex()[:16]

    return name
