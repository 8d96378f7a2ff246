from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any
from uuid import UUID

from django import forms

from annotation.errors import Refused
from annotation.judgments import Answer
from annotation.models import Criterion, Dimension, Example, Judgment, Wording
from generation import images

Outcome = Judgment.Outcome
WITHOUT_PICK = {Outcome.NO_DIFFERENCE.value, Outcome.CANNOT_JUDGE.value}
SKIP_REASONS = [
    "The picture or the mask is broken",
    "The prompt makes no sense here",
    "The content is offensive",
    "Something else",
]


# Judgments --------------------------------------------------------------------------------------
# Forms speak of places from left to right, 1 to N: what is sent to the browser does not tell in
# which order the candidates were drawn.


def read_answers(
    data: Mapping[str, str], criteria: Sequence[Criterion], order: Sequence[int]
) -> dict[str, Answer]:
    """The posted answers; a dimension without any is left out."""
    answers = {}
    for criterion in criteria:
        dimension = criterion.dimension
        best, worst = (
            data.get(f"best-{dimension.slug}", ""),
            data.get(f"worst-{dimension.slug}", ""),
        )
        if best in WITHOUT_PICK:
            # Without JavaScript a worst that was chosen before stays checked; it means nothing now.
            answers[dimension.slug] = Answer(best)
        elif best or worst:
            answers[dimension.slug] = Answer(
                Outcome.PICKED,
                _index(best, order, dimension.name),
                _index(worst, order, dimension.name),
            )
    return answers


def _index(place: str, order: Sequence[int], name: str) -> int | None:
    if not place:
        return None
    if not place.isdecimal() or not 1 <= int(place) <= len(order):
        raise Refused(
            f"{name}: there is no candidate “{place[:20]}”. Choose among 1 to {len(order)}."
        )
    return order[int(place) - 1]


def show_answers(answers: Mapping[str, Answer], order: Sequence[int]) -> dict[str, tuple[str, str]]:
    """For each dimension what its best and its worst field hold."""
    places = {index: str(place) for place, index in enumerate(order, start=1)}
    return {
        slug: (answer.outcome, "")
        if answer.outcome in WITHOUT_PICK
        else (places.get(_or_none(answer.best), ""), places.get(_or_none(answer.worst), ""))
        for slug, answer in answers.items()
    }


def _or_none(index: int | None) -> int:
    return -1 if index is None else index


def read_submission(data: Mapping[str, str]) -> UUID | None:
    try:
        return UUID(data.get("submission", ""))
    except ValueError:
        return None


def read_seconds(data: Mapping[str, str]) -> float | None:
    try:
        return float(data.get("seconds", ""))
    except ValueError:
        return None


# Taxonomy ---------------------------------------------------------------------------------------


class DimensionForm(forms.ModelForm):
    """A dimension together with its newest wording; changing the wording adds a version."""

    question = forms.CharField(
        max_length=300,
        widget=forms.TextInput(attrs={"size": 90}),
        help_text="Asked of annotators.",
    )
    query = forms.CharField(
        max_length=500,
        widget=forms.Textarea(attrs={"rows": 2, "cols": 90}),
        help_text="Asked of the reward model: a yes/no question whether the first image is better "
        "than the second. Where the dimension uses the prompt, {prompt} stands for it.",
    )
    guideline = forms.CharField(
        required=False, widget=forms.Textarea(attrs={"rows": 4, "cols": 90})
    )

    class Meta:
        model = Dimension
        fields = ["name", "slug", "active", "uses_prompt"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        newest = self._newest(self.instance)
        if newest is not None:
            for field in ("question", "query", "guideline"):
                self.fields[field].initial = getattr(newest, field)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        query = cleaned.get("query", "")
        try:
            fields = {name for _, name, _, _ in Formatter().parse(query) if name is not None}
        except ValueError:
            self.add_error("query", "Write { and } only around the word prompt: {prompt}.")
            return cleaned
        if fields - {"prompt"}:
            self.add_error("query", "Only {prompt} can stand in a query; write the rest as words.")
        elif cleaned.get("uses_prompt") and not fields:
            self.add_error(
                "query", "This dimension uses the prompt: put {prompt} where it belongs."
            )
        elif fields and not cleaned.get("uses_prompt"):
            self.add_error(
                "query", "Tick “uses prompt”, or write the query without {prompt} in it."
            )
        return cleaned

    def save_wording(self, dimension: Dimension) -> None:
        newest = self._newest(dimension)
        said = {field: self.cleaned_data[field] for field in ("question", "query", "guideline")}
        if newest is None or any(getattr(newest, field) != said[field] for field in said):
            version = newest.version + 1 if newest else 1
            Wording.objects.create(dimension=dimension, version=version, **said)

    @staticmethod
    def _newest(dimension: Dimension) -> Wording | None:
        return dimension.wordings.order_by("-version").first() if dimension.pk else None


class ExampleForm(forms.ModelForm):
    """An example picture, read as safely as every other."""

    picture = forms.FileField(
        required=False,
        help_text="PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF.",
        widget=forms.ClearableFileInput(attrs={"accept": "image/*"}),
    )

    class Meta:
        model = Example
        fields = ["good", "caption", "order"]

    def clean_picture(self) -> Any:
        upload = self.cleaned_data["picture"]
        if upload is None:
            if self.instance.pk is None:
                raise forms.ValidationError("Choose a picture.")
            return None
        try:
            return images.decode(upload.file, name=upload.name)
        except images.ImageError as error:
            raise forms.ValidationError(str(error)) from None

    def save(self, commit: bool = True) -> Any:
        if self.cleaned_data["picture"] is not None:
            self.instance.image = images.store(self.cleaned_data["picture"])
        return super().save(commit)
