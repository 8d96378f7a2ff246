"""Work for whoever uses the models: pictures that are made and ranked on order."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.urls import reverse

from generation.models import (
    Candidate,
    CandidateSet,
    GenerationRun,
    Image,
    Project,
    Source,
    Task,
)
from generation.ownership import Job, JobState


class Ranking(Job):
    """An order to rank pictures of one source by a reward model.

    Picture, mask and prompt stand here, since what is ranked need not be a source of a project.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="rankings")
    task = models.ForeignKey(Task, on_delete=models.PROTECT, related_name="+")
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="+")
    mask = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="+")
    prompt = models.TextField(blank=True)
    reward_model = models.ForeignKey(
        "modeling.RewardModel", on_delete=models.PROTECT, related_name="rankings"
    )
    # [{"index", "score", "dimensions", "std", "flipped"}, …] from best to worst
    result = models.JSONField(default=list, blank=True)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta(Job.Meta):
        abstract = False
        indexes = [models.Index(fields=["state", "reward_model"], name="ranking_to_claim")]

    def __str__(self) -> str:
        return f"ranking {self.pk}"

    def get_absolute_url(self) -> str:
        return reverse("modeling:api_ranking", args=[self.pk])

    def source(self) -> Source:
        """What the pictures are edits of, as a row that is not stored."""
        return Source(
            project=self.project,
            task=self.task,
            image=self.image,
            mask=self.mask,
            prompt=self.prompt,
        )


class RankedPicture(models.Model):
    """A picture of a ranking, in the order in which they were given."""

    ranking = models.ForeignKey(Ranking, on_delete=models.CASCADE, related_name="pictures")
    index = models.PositiveSmallIntegerField()
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="+")
    candidate = models.ForeignKey(
        Candidate, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["ranking_id", "index"]
        constraints = [
            models.UniqueConstraint(fields=["ranking", "index"], name="ranked_picture_once")
        ]

    def __str__(self) -> str:
        return f"picture {self.index} of {self.ranking_id}"


class Edit(models.Model):
    """An order to edit one picture: a candidate set, made first and then, where wished, ranked."""

    set = models.OneToOneField(CandidateSet, on_delete=models.CASCADE, related_name="edit")
    wanted = models.PositiveSmallIntegerField()  # how many of the set are given back
    # What ranks them; empty: they are given back as they were made.
    reward_model = models.ForeignKey(
        "modeling.RewardModel", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    ranking = models.OneToOneField(
        Ranking, null=True, blank=True, on_delete=models.SET_NULL, related_name="edit"
    )
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"edit {self.pk}"

    def get_absolute_url(self) -> str:
        return reverse("modeling:edit", args=[self.pk])

    @property
    def run(self) -> GenerationRun:
        assert self.set.run is not None
        return self.set.run

    @property
    def source(self) -> Source:
        return self.set.source

    @property
    def state(self) -> str:
        if self.run.state != JobState.SUCCEEDED or self.reward_model_id is None:
            return self.run.state
        return self.ranking.state if self.ranking else JobState.QUEUED

    @property
    def is_open(self) -> bool:
        return self.state in (JobState.QUEUED, JobState.RUNNING)

    @property
    def error(self) -> str:
        return self.run.error or (self.ranking.error if self.ranking else "")
