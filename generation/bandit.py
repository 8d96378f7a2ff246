"""Which of the values that candidates are drawn with lead to labels that say something.

A bandit per parameter: each value has a Beta posterior of the chance that a candidate drawn with it
takes part in an informative label. Thompson sampling draws a value as often as it is the best one
under the posterior (Thompson 1933; Chapelle & Li 2011); here that share is computed once and stored
as the value's weight, so that a set's draw needs nothing but the weights and a seed. A part of
every weight is equal for all values, so that none is ever given up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any

import numpy as np

PARAMETERS = {
    "steps": "num_inference_steps",
    "strength": "strength",
    "guidance_scale": "guidance_scale",
    "true_cfg_scale": "true_cfg_scale",
    "negative_prompts": "negative_prompt",
}
FLOOR = 0.5  # of what a value has under equal weights
# A pair is close while a reward model gives the better picture less than 80 %.
CLOSE = log(0.8 / 0.2)
DRAWS = 20_000  # from each posterior


@dataclass
class Evidence:
    """What labels say of the values that candidates were drawn with.

    `seen` holds, by parameter and value, how many candidates took part in an informative label and
    how many did not; a candidate judged on several dimensions counts in parts.
    """

    sets: int = 0
    seen: dict[str, dict[Any, tuple[float, float]]] = field(default_factory=dict)

    def add(self, name: str, value: Any, informative: float) -> None:
        of_parameter = self.seen.setdefault(name, {})
        yes, no = of_parameter.get(value, (0.0, 0.0))
        of_parameter[value] = (yes + informative, no + 1.0 - informative)


def learnt_weights(
    lists: Mapping[str, Sequence[Any]], evidence: Evidence, *, floor: float = FLOOR
) -> dict[str, list[float]]:
    """A weight per value of each parameter that has a choice; the same evidence gives the same."""
    weights = {}
    for number, name in enumerate(PARAMETERS):
        values = lists[name]
        if len(values) < 2:
            continue
        rng = np.random.default_rng(number)
        seen: Mapping[Any, tuple[float, float]] = evidence.seen.get(name, {})
        counts = np.array([seen.get(value, (0.0, 0.0)) for value in values])  # (V, 2)
        chances = rng.beta(1 + counts[:, 0], 1 + counts[:, 1], (DRAWS, len(values)))
        best = np.bincount(chances.argmax(axis=1), minlength=len(values)) / DRAWS
        weights[name] = [
            round(float(floor / len(values) + (1 - floor) * share), 4) for share in best
        ]
    return weights


def one_of(values: Sequence[Any], weights: Sequence[float] | None, rng: np.random.Generator) -> Any:
    """Draw a value; without weights each is as likely."""
    if not weights:
        return values[int(rng.integers(len(values)))]
    likely = np.asarray(weights, dtype=np.float64)
    return values[int(rng.choice(len(values), p=likely / likely.sum()))]
