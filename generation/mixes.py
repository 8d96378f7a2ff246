"""Sets whose candidates several policies make: each candidate's policy is drawn by its share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from generation import policies
from generation.models import Candidate, Policy

Mix = Mapping[Policy, float]


def check(mix: Mix) -> None:
    """Raise PolicyError where the policies cannot stand in one set."""
    if not all(share > 0 for share in mix.values()):
        raise policies.PolicyError("Every policy of a mix needs a share above 0.")
    # The candidates of a set are compared, so they must be of one size.
    if len({(one.max_pixels, policies.size_multiple(one)) for one in mix}) > 1:
        names = ", ".join(f"“{one}”" for one in mix)
        raise policies.PolicyError(
            f"{names} make pictures of different sizes, which cannot stand in one set. Give them "
            "the same max_pixels in the admin, or do not mix them."
        )


def draw(candidates: Sequence[Candidate], mix: Mix, seed: int) -> None:
    """Draw every candidate's policy, apart from all else that is drawn for it."""
    ordered = sorted(mix, key=lambda policy: policy.pk)
    shares = np.array([mix[policy] for policy in ordered])
    rng = np.random.default_rng([seed, len(candidates), len(ordered)])
    drawn = rng.choice(len(ordered), size=len(candidates), p=shares / shares.sum())
    for candidate, which in zip(candidates, drawn, strict=True):
        candidate.policy = ordered[which]
