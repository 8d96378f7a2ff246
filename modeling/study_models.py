"""What evaluations are told by: studies, figures that others published, links to a leaderboard."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from annotation.models import Campaign, Dimension
from generation.models import HEX64, Policy, Project, Task, default_project


class LeaderboardLink(models.Model):
    """An address under which anybody may read one leaderboard. Only its digest is stored."""

    project = models.ForeignKey(
        Project, on_delete=models.CASCADE, related_name="leaderboard_links", default=default_project
    )
    task = models.ForeignKey(
        Task, null=True, blank=True, on_delete=models.CASCADE, related_name="+"
    )
    dimension = models.ForeignKey(
        Dimension, null=True, blank=True, on_delete=models.CASCADE, related_name="+"
    )
    campaign = models.ForeignKey(
        Campaign, null=True, blank=True, on_delete=models.CASCADE, related_name="+"
    )
    simulated = models.BooleanField(default=False)
    digest = models.CharField(max_length=64, unique=True, validators=[HEX64])
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        parts = [self.project, self.task, self.dimension, self.campaign]
        return " · ".join(str(part) for part in parts if part is not None)


class Study(models.Model):
    """A table for a paper: which systems are compared, on which tasks, by which campaigns."""

    project = models.ForeignKey(
        Project, on_delete=models.PROTECT, related_name="studies", default=default_project
    )
    name = models.CharField(max_length=120, unique=True, verbose_name=_("Name"))
    question = models.TextField(
        blank=True, verbose_name=pgettext_lazy("of a study", "What it should find out")
    )
    systems = models.ManyToManyField(
        Policy,
        blank=True,
        related_name="studies",
        help_text=_("None chosen: all that were judged."),
    )
    campaigns = models.ManyToManyField(
        Campaign,
        blank=True,
        related_name="studies",
        help_text=_("None chosen: every rating and comparison of the project."),
    )
    tasks = models.ManyToManyField(
        Task, blank=True, help_text=_("None chosen: all that were judged.")
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-pk"]
        verbose_name_plural = "studies"

    def __str__(self) -> str:
        return self.name


class PublishedFigure(models.Model):
    """A figure from somebody's paper, as it stands there; shares are in per cent."""

    class Metric(models.TextChoices):
        USABLE = "usable", _("Usability rate")
        MOS = "mos", _("Mean opinion score")
        SUCCESS = "success", _("Success rate")
        REWARD_ACCURACY = "reward_accuracy", _("Accuracy of the reward model")
        GOOD = "good", pgettext_lazy("good, same, bad", "Good")
        SAME = "same", pgettext_lazy("good, same, bad", "Same")
        BAD = "bad", pgettext_lazy("good, same, bad", "Bad")

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="published")
    system = models.CharField(max_length=120)
    versus = models.CharField(max_length=120, blank=True)  # of good, same and bad
    task = models.CharField(max_length=80)
    dimension = models.CharField(max_length=80, blank=True)
    metric = models.CharField(max_length=16, choices=Metric)
    value = models.FloatField()
    n = models.PositiveIntegerField(null=True, blank=True)
    citation = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["study", "system", "versus", "task", "dimension", "metric"],
                name="published_figure_once",
            ),
            models.CheckConstraint(
                condition=Q(metric="mos", value__range=(1, 5))
                | (~Q(metric="mos") & Q(value__range=(0, 100))),
                name="published_figure_in_range",
            ),
            models.CheckConstraint(
                condition=(Q(metric__in=["good", "same", "bad"]) & ~Q(versus=""))
                | (~Q(metric__in=["good", "same", "bad"]) & Q(versus="")),
                name="published_figure_versus_fits",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.system} {self.task} {self.metric}"
