from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy
from PIL import Image as Pillow

from annotation.models import Campaign
from generation import images
from generation.access import projects_of
from generation.forms import SourceForm
from generation.models import Project, Role, Source
from modeling import edits, rankings
from modeling.models import Edit

SIDES = ("left", "top", "width", "height")


def _side(label: Any) -> forms.IntegerField:
    return forms.IntegerField(label=label, min_value=0, max_value=100_000, required=False)


class EditForm(SourceForm):
    """A picture, the area to edit in one of three ways, and how many answers are wanted."""

    source = forms.ModelChoiceField(Source.objects.none(), required=False, widget=forms.HiddenInput)
    left, top = _side(lazy("Left")), _side(lazy("Top"))
    width, height = _side(lazy("Width")), _side(lazy("Height"))
    count = forms.IntegerField(
        label=lazy("Pictures"), min_value=edits.FEWEST, max_value=edits.MOST, initial=4
    )
    rank = forms.BooleanField(
        label=lazy("Put the best first, as the reward model sees it"), required=False, initial=True
    )
    tags = licence = attribution = size = None  # type: ignore[assignment]

    def __init__(self, *args: Any, projects: QuerySet[Project], **kwargs: Any) -> None:
        super().__init__(*args, projects=projects, **kwargs)
        field = self.fields["source"]
        assert isinstance(field, forms.ModelChoiceField)
        found = Source.objects.filter(project__in=projects)
        field.queryset = found.select_related("task", "image", "mask", "project")
        self.fields["mask"].help_text = lazy(
            "White where the picture is to be edited, the same size. Instead of a file you may "
            "give a rectangle below."
        )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if self.errors:
            return data
        source: Source | None = data["source"]
        if data["image"] is None and source is not None:
            data["image"] = images.open_image(source.image)
            data["project"] = source.project
            if data["mask"] is None and self._rectangle() is None:
                data["mask"] = images.open_image(source.mask)
        if data["mask"] is None and data["image"] is not None:
            data["mask"] = self._mask(data["image"].size)
        task = data["task"]
        if not task.needs_source:
            data["image"] = None
        if not task.needs_mask:
            data["mask"] = None
        return data

    def _rectangle(self) -> tuple[int, ...] | None:
        sides = [self.cleaned_data.get(side) for side in SIDES]
        if sides[2] and sides[3]:
            return tuple(side or 0 for side in sides)
        return None

    def _mask(self, size: tuple[int, int]) -> Pillow.Image | None:
        box = self._rectangle()
        if box is None:
            return None
        left, top, width, height = box
        if left + width > size[0] or top + height > size[1]:
            said = _("The rectangle does not lie in the picture of %(width)d × %(height)d pixels.")
            self.add_error("width", said % {"width": size[0], "height": size[1]})
            return None
        mask = Pillow.new("L", size, 0)
        mask.paste(255, (left, top, left + width, top + height))
        return mask

    def order(self, user: User) -> Edit:
        data = self.cleaned_data
        return edits.order(
            project=data["project"],
            task=data["task"],
            image=data["image"],
            mask=data["mask"],
            prompt=data["prompt"],
            policy=edits.policy_named(edits.ACTIVE),
            wanted=data["count"],
            reward=rankings.active_reward() if data["rank"] else None,
            user=user,
        )


class LabelForm(forms.Form):
    """The campaign that an edit's pictures are to be judged in."""

    campaign = forms.ModelChoiceField(
        Campaign.objects.none(), label=lazy("Campaign"), empty_label=None
    )

    def __init__(self, *args: Any, edit: Edit, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        managed = projects_of(user, Role.MANAGER).filter(slug=edit.source.project.slug)
        rows = Campaign.objects.filter(project__in=managed, purpose=Campaign.Purpose.PREFERENCE)
        field = self.fields["campaign"]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = rows.exclude(state=Campaign.State.CLOSED)
