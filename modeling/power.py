"""How many images a study needs to see a difference, and what it can see with those it has.

Two systems on the same sources (paired) differ only where one is usable and the other is not, so
what counts is the share of such sources; on different sources the whole spread counts. Several
people per image help as far as they disagree; many comparisons in one study lower the level of
each, as Holm's first step does.

Unpaired shares: Fleiss, Levin and Paik (2003), 4.14. Paired shares: McNemar's test, Miettinen
(1968) and Connor (1987). Means: the normal approximation of the t test.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist

NORMAL = NormalDist()
MOST = 10_000_000


class PowerError(ValueError):
    """A question that has no answer; the message says why."""


@dataclass(frozen=True)
class Design:
    """What the study is like besides its size."""

    power: float = 0.8
    level: float = 0.05
    comparisons: int = 1
    raters: int = 1  # per image
    agreement: float = 0.5  # correlation of two people's answers about one image

    def __post_init__(self) -> None:
        if not 0 < self.level < 1 or not 0 < self.power < 1:
            raise PowerError("Power and level lie between 0 and 1.")
        if self.comparisons < 1 or self.raters < 1 or not 0 <= self.agreement <= 1:
            raise PowerError(
                "Give at least one comparison and one person, and an agreement of 0 to 1."
            )

    @property
    def z_level(self) -> float:
        return NORMAL.inv_cdf(1 - self.level / self.comparisons / 2)

    @property
    def z_power(self) -> float:
        return NORMAL.inv_cdf(self.power)

    @property
    def spread(self) -> float:
        """The variance of an image's mean answer against that of a single answer."""
        return (1 + (self.raters - 1) * self.agreement) / self.raters

    def images(self, needed: float) -> int:
        return min(MOST, ceil(needed * self.spread - 1e-9))


ONE = Design()


def images_for_share(base: float, difference: float, design: Design = ONE) -> int:
    """Images of each system, on different sources, to see `base` become `base + difference`."""
    other = base + difference
    _check_shares(base, difference)
    mean = (base + other) / 2
    either = design.z_level * sqrt(2 * mean * (1 - mean))
    apart = design.z_power * sqrt(base * (1 - base) + other * (1 - other))
    return design.images(((either + apart) / difference) ** 2)


def images_for_paired_share(discordant: float, difference: float, design: Design = ONE) -> int:
    """Sources that both systems edit; `discordant` is the share on which they come out unlike.

    The same holds for good, same and bad: `discordant` is good + bad, the difference good - bad.
    """
    if not abs(difference) <= discordant <= 1 or not difference:
        raise PowerError(
            "The share of sources on which the two come out unlike is at least the difference and "
            "at most 100 %."
        )
    either = design.z_level * sqrt(discordant)
    apart = design.z_power * sqrt(discordant - difference**2)
    return design.images(((either + apart) / difference) ** 2)


def images_for_mean(deviation: float, difference: float, design: Design = ONE) -> int:
    """Images of each system, on different sources, to see a difference of mean scores."""
    if deviation <= 0 or not difference:
        raise PowerError("Give a standard deviation above 0 and a difference other than 0.")
    z = design.z_level + design.z_power
    return design.images(2 * (deviation * z / difference) ** 2)


def images_for_paired_mean(deviation: float, difference: float, design: Design = ONE) -> int:
    """Sources that both systems edit; `deviation` is that of the differences."""
    if deviation <= 0 or not difference:
        raise PowerError("Give a standard deviation above 0 and a difference other than 0.")
    z = design.z_level + design.z_power
    return design.images((deviation * z / difference) ** 2)


def expected_discordant(base: float, difference: float, alike: float = 0.0) -> float:
    """The share of sources on which two systems come out unlike.

    `alike` is the correlation of their outcomes: 0 is as if they were drawn anew, 1 as alike as the
    difference allows.
    """
    _check_shares(base, difference)
    other = base + difference
    both = base * other + alike * sqrt(base * (1 - base) * other * (1 - other))
    both = max(0.0, base + other - 1, min(both, base, other))
    return base + other - 2 * both


def _check_shares(base: float, difference: float) -> None:
    if not 0 < base < 1 or not 0 < base + difference < 1 or not difference:
        raise PowerError(
            "Both rates lie above 0 and below 100 %, and differ: choose another rate or difference."
        )
