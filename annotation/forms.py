from __future__ import annotations

from string import Formatter
from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy

from annotation.models import Dimension, Example, Wording
from generation import images

# Taxonomy ---------------------------------------------------------------------------------------


class DimensionForm(forms.ModelForm):
    """A dimension together with its newest wording; changing the wording adds a version."""

    question = forms.CharField(
        max_length=300,
        widget=forms.TextInput(attrs={"size": 90}),
        help_text=lazy("Asked of annotators."),
    )
    query = forms.CharField(
        max_length=500,
        widget=forms.Textarea(attrs={"rows": 2, "cols": 90}),
        help_text=lazy(
            "Asked of the reward model: a yes/no question whether the first image is "
            "better than the second. Where the dimension uses the prompt, {prompt} "
            "stands for it."
        ),
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
            self.add_error("query", _("Write { and } only around the word prompt: {prompt}."))
            return cleaned
        if fields - {"prompt"}:
            self.add_error(
                "query", _("Only {prompt} can stand in a query; write the rest as words.")
            )
        elif cleaned.get("uses_prompt") and not fields:
            self.add_error(
                "query", _("This dimension uses the prompt: put {prompt} where it belongs.")
            )
        elif fields and not cleaned.get("uses_prompt"):
            self.add_error(
                "query", _("Tick “uses prompt”, or write the query without {prompt} in it.")
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
        help_text=lazy("PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF."),
        widget=forms.ClearableFileInput(attrs={"accept": "image/*"}),
    )

    class Meta:
        model = Example
        fields = ["good", "caption", "order"]

    def clean_picture(self) -> Any:
        upload = self.cleaned_data["picture"]
        if upload is None:
            if self.instance.pk is None:
                raise forms.ValidationError(_("Choose a picture."))
            return None
        try:
            return images.decode(upload.file, name=upload.name)
        except images.ImageError as error:
            raise forms.ValidationError(str(error)) from None

    def save(self, commit: bool = True) -> Any:
        if self.cleaned_data["picture"] is not None:
            self.instance.image = images.store(self.cleaned_data["picture"])
        return super().save(commit)
