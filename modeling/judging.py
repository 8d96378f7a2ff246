"""A reward model as a judge of finished pictures: both orders of every comparison, averaged."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image as PILImage

from generation import locations, shared
from generation.models import Source
from modeling import policy_inputs
from modeling.models import RewardModel

if TYPE_CHECKING:
    from torch import Tensor


class JudgeError(Exception):
    """One readable sentence: why nothing can be judged, and the remedy."""


class Judge:
    """A loaded reward model; with `others`, LoRAs on the same base, an ensemble for ranking."""

    def __init__(self, location: str, adapter: str = "", others: Sequence[str] = ()) -> None:
        try:
            locations.check_all([location, adapter, *others])
        except locations.LocationError as error:
            raise JudgeError(str(error)) from None
        import torch

        from modeling.reward.uncertainty import load_ensemble
        from modeling.reward.vlm import load_reward_vlm

        location, adapter = shared.local(location), shared.local(adapter)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self.ensemble = None
        if others:
            adapters = [adapter, *map(shared.local, others)]
            self.ensemble = load_ensemble(location, adapters, device=device, dtype=dtype)
            self.vlm = self.ensemble.vlm
        else:
            self.vlm = load_reward_vlm(location, adapter=adapter, device=device, dtype=dtype)

    def margins(
        self,
        first: PILImage.Image,
        second: PILImage.Image,
        source: PILImage.Image,
        mask: PILImage.Image,
        queries: list[str],
    ) -> list[float]:
        """Log-odds per query that `first` is the better picture; swapped pictures negate them."""
        import torch

        from generation.diffusion.generate import image_tensor, mask_tensor
        from modeling.reward.scoring import both_orders
        from modeling.reward.view import reward_context, reward_view

        pictures = torch.cat([image_tensor(first), image_tensor(second)])  # (2, 3, H, W)
        sources = image_tensor(source).expand_as(pictures)
        masks = mask_tensor(mask).expand(2, -1, -1, -1)
        with torch.no_grad():
            views = reward_view(pictures, sources, masks, self.vlm.view)
            context = reward_context(sources[:1], masks[:1], self.vlm.view)
            asked = both_orders(self.vlm, views[:1], views[1:], [queries], context)
        return [float(value) for value in asked.margin[0].cpu()]

    def rank_all(
        self, contests: Sequence[Contest], caution: float = 0.0
    ) -> list[list[dict[str, Any]]]:
        """Of each contest the pictures from best to worst.

        Besides its scores each has, by dimension, their standard deviation over the members of an
        ensemble ("std") and the share of its comparisons whose winner changes with the order in
        which the two are shown ("flipped").
        """
        import torch

        from generation.diffusion.generate import image_tensor, mask_tensor
        from modeling.reward import rerank
        from modeling.reward.view import reward_context, reward_view

        shown = []
        for one in contests:
            stack = torch.cat([image_tensor(picture) for picture in one.pictures])  # (N, 3, H, W)
            sources = image_tensor(one.source).expand_as(stack)
            masks = mask_tensor(one.mask).expand(len(stack), -1, -1, -1)
            views = reward_view(stack, sources, masks, self.vlm.view)
            context = reward_context(sources[:1], masks[:1], self.vlm.view)
            shown.append(rerank.Contest(views, list(one.queries.values()), context))
        found = rerank.rerank_all(self.ensemble or self.vlm, shown, caution=caution)
        return [
            [
                {
                    "index": index,
                    "score": float(ranking.scores[index].mean()),
                    "dimensions": _by_name(one, ranking.scores[index]),
                    "std": _by_name(one, ranking.std[index]),
                    "flipped": _by_name(one, ranking.flipped[index]),
                }
                for index in ranking.order
            ]
            for one, ranking in zip(contests, found, strict=True)
        ]


def _by_name(contest: Contest, values: Tensor) -> dict[str, float]:
    return dict(zip(contest.queries, values.tolist(), strict=True))


@dataclass(frozen=True)
class Contest:
    """Pictures of one source, all of one size, and what is asked about them by dimension."""

    pictures: Sequence[PILImage.Image]
    source: PILImage.Image
    mask: PILImage.Image
    queries: Mapping[str, str]


# The last judge stays loaded, for the next pictures that are ranked here.
_kept: dict[tuple[str, ...], Judge] = {}


def loaded_judge(model: RewardModel, others: Sequence[RewardModel] = ()) -> Judge:
    name = (model.location, model.adapter, *(other.adapter for other in others))
    if name not in _kept:
        release()
        _kept[name] = Judge(model.location, model.adapter, name[2:])
    return _kept[name]


def release() -> None:
    """Forget the loaded judge and give its memory back, for example before training."""
    if not _kept:
        return
    import torch

    _kept.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def check_together(model: RewardModel, others: Sequence[RewardModel]) -> None:
    """Raise JudgeError unless all of them are LoRAs on one base."""
    for other in others:
        if not (model.adapter and other.adapter) or other.location != model.location:
            raise JudgeError(
                f"'{model}' and '{other}' cannot judge together: an ensemble needs LoRAs on one "
                "base."
            )


def contest(model: RewardModel, source: Source, pictures: Sequence[PILImage.Image]) -> Contest:
    """What `model` is asked about these pictures; JudgeError where it cannot judge them."""
    from modeling.evaluation import inputs_at

    if len(pictures) < 2:
        raise JudgeError(f"Ranking needs at least two pictures, not {len(pictures)}.")
    sizes = {picture.size for picture in pictures}
    if len(sizes) > 1:
        found = ", ".join(f"{w}×{h}" for w, h in sorted(sizes))
        raise JudgeError(f"All pictures must have one size to be compared; these have {found}.")
    criteria, notes = policy_inputs.questions(source.task, model)
    queries = policy_inputs.ask(source, criteria)
    if not queries:
        raise JudgeError(
            f"'{model}' judges no dimension of {source.task}. {' '.join(notes)}".strip()
        )
    original, mask = inputs_at(source, pictures[0].size)
    return Contest(pictures, original, mask, queries)


def rank(
    model: RewardModel,
    source: Source,
    pictures: Sequence[PILImage.Image],
    *,
    others: Sequence[RewardModel] = (),
    caution: float = 0.0,
) -> list[dict[str, Any]]:
    """The pictures from best to worst, as {"index", "score", "dimensions", "std", "flipped"}.

    `others` judge together with `model`; all must be LoRAs on one base. `caution` orders by the
    score less so many of their standard deviations.
    """
    check_together(model, others)
    asked = contest(model, source, pictures)
    return loaded_judge(model, others).rank_all([asked], caution)[0]
