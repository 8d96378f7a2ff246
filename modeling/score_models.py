"""What reward models think of candidates, kept so that each set is scored once."""

from __future__ import annotations

from django.db import models

from generation.models import CandidateSet


class SetScore(models.Model):
    """A reward model's opinion of a set.

    `by_dimension` is {dimension: {"score": […], "std": […], "flipped": […]}}, each list by the
    candidates' indexes and as `modeling.reward.rerank.Ranking` has them; "std" is over `members`,
    the numbers of the models that judged together with it.
    """

    set = models.ForeignKey(CandidateSet, on_delete=models.CASCADE, related_name="scores")
    reward_model = models.ForeignKey(
        "modeling.RewardModel", on_delete=models.CASCADE, related_name="set_scores"
    )
    by_dimension = models.JSONField(default=dict)
    members = models.JSONField(default=list)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["set", "reward_model"], name="set_score_once")
        ]

    def __str__(self) -> str:
        return f"{self.reward_model_id} on {self.set_id}"
