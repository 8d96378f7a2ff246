"""x_ref: the images that the policy's are compared with, from the frozen parent or from the EMA."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from modeling.policy.adapters import EMA, REFERENCE
from modeling.policy.objectives.protocol import Parts
from modeling.policy.references import References
from modeling.policy.rollouts import favourites
from modeling.policy.sources import Batch
from modeling.policy.watch import seed_of


class ReferenceImages:
    """`moving`: the reference is the EMA (Algorithm 2), otherwise the parent (Algorithm 1)."""

    def __init__(self, parts: Parts, *, moving: bool) -> None:
        self.parts = parts
        self.moving = moving
        config = parts.config
        self.store = References(
            parts.directory / "references",
            staleness=config.reference_staleness if moving else None,
            keep_steps=3 * config.checkpoint_every,
            rank=parts.rank,
        )

    def get(self, step: int, batch: Batch, numbers: Sequence[int]) -> tuple[Tensor, int]:
        """(B, 3, H, W) from noise of their own, and how many were sampled for this step.

        `numbers` chooses among the references that a source of a frozen parent has.
        """
        config, roles, sampler = self.parts.config, self.parts.roles, self.parts.sampler
        keys = [
            (row.id, 0 if self.moving else number)
            for row, number in zip(batch.rows, numbers, strict=True)
        ]

        def make(indices: list[int]) -> Tensor:
            chosen = batch.pick(indices)
            # Frozen references are a property of the run; the EMA's are drawn anew each time.
            made = step if self.moving else 0
            drawn = []
            with roles.acting(EMA if self.moving else REFERENCE) as transformer:
                for turn in range(config.reference_best_of):
                    seeds = [
                        seed_of("reference", config.seed, made, turn, *keys[i]) for i in indices
                    ]
                    drawn.append(sampler.pictures(transformer, chosen, seeds))
            return favourites(self.parts.vlm, drawn, chosen)

        return self.store.get(step, keys, make)
