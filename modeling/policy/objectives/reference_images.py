"""x_ref: the images that the policy's are compared with, from the frozen parent or from the EMA."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from modeling.policy.adapters import EMA, REFERENCE
from modeling.policy.objectives.protocol import Parts
from modeling.policy.placement import at_work
from modeling.policy.references import References, Served
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
            process=(parts.processes.rank, parts.processes.count),
            wait=parts.processes.wait,
            together=parts.processes.divides,
        )

    def get(self, step: int, batch: Batch, numbers: Sequence[int]) -> Served:
        """Images from noise of their own for the batch of this process.

        `numbers` chooses among the references that a source of a frozen parent has.
        """
        config, roles, sampler = self.parts.config, self.parts.roles, self.parts.sampler
        own = [
            (self.parts.sources.key(row), 0 if self.moving else number)
            for row, number in zip(batch.rows, numbers, strict=True)
        ]
        keys = self.parts.processes.gather(own)
        begin = self.parts.processes.rank * len(own)

        def make(indices: list[int]) -> Tensor:
            chosen = batch.pick([index - begin for index in indices])
            # Frozen references are a property of the run; the EMA's are drawn anew each time.
            made = step if self.moving else 0
            drawn = []
            with roles.acting(EMA if self.moving else REFERENCE) as transformer:
                for turn in range(config.reference_best_of):
                    seeds = [
                        seed_of("reference", config.seed, made, turn, *keys[i]) for i in indices
                    ]
                    drawn.append(sampler.pictures(transformer, chosen, seeds))
            with at_work(self.parts.vlm, batch.images.device, offload=config.offload_reward):
                return favourites(self.parts.vlm, drawn, chosen)

        return self.store.get(step, keys, make, slice(begin, begin + len(own)))

    def figures(self, served: Served) -> dict[str, float]:
        """What to log of them; a frozen parent's do not grow stale."""
        values: dict[str, float] = {"references_made": served.made}
        if self.moving:
            values["reference_staleness"] = sum(served.ages) / len(served.ages)
            values["reference_staleness_max"] = max(served.ages)
        return values
