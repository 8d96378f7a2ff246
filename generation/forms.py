from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.core.files.uploadedfile import UploadedFile
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy

from generation import images, plans, policies, sources
from generation.images import ImageError
from generation.models import Policy, Project, SamplingPlan, Source, Split, Task
from generation.sources import SourceError

# About a megapixel each, the first as FLUX is commonly asked.
SIZES = [(1024, 1024), (1216, 832), (832, 1216), (1344, 768), (768, 1344), (512, 512)]


class ProjectField(forms.ModelChoiceField):
    """The project something is made in, among those given; with one there is nothing to choose."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(Project.objects.none(), **({"empty_label": None} | kwargs))

    @staticmethod
    def offer(form: forms.Form, projects: QuerySet[Project]) -> None:
        field = form.fields["project"]
        assert isinstance(field, ProjectField)
        field.queryset = projects
        if len(found := list(projects[:2])) < 2:
            field.widget = forms.HiddenInput()
            field.required = False
            field.initial = found[0] if found else None

    def clean(self, value: Any) -> Any:
        return super().clean(value) or self.initial


class SourceFilter(forms.Form):
    project = ProjectField(
        label=lazy("Project"),
        required=False,
        empty_label=lazy("Every project"),
        to_field_name="slug",
    )
    task = forms.ModelChoiceField(
        Task.objects.all(),
        to_field_name="slug",
        required=False,
        empty_label=lazy("Every task"),
        label=lazy("Task"),
    )
    split = forms.ChoiceField(
        choices=[("", lazy("Train and holdout")), *Split.choices],
        required=False,
        label=lazy("Split"),
    )
    q = forms.CharField(label=lazy("Prompt has"), required=False)

    def __init__(self, *args: Any, projects: QuerySet[Project], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if projects[:2].count() > 1:
            ProjectField.offer(self, projects)
        else:
            del self.fields["project"]


class SourceForm(forms.Form):
    """A picture, its mask and a prompt; the errors stand at the field that can be mended."""

    project = ProjectField(
        label=lazy("Project"), help_text=lazy("Only its members will see the picture.")
    )
    task = forms.ModelChoiceField(Task.objects.active(), empty_label=None, label=lazy("Task"))
    image = forms.FileField(
        label=lazy("Picture"),
        required=False,
        help_text=lazy(
            "PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF. It is turned upright and its "
            "metadata is dropped."
        ),
        widget=forms.ClearableFileInput(attrs={"accept": "image/*"}),
    )
    mask = forms.FileField(
        label=lazy("Mask"),
        required=False,
        help_text=lazy("The same size, white where the picture is to be edited, black elsewhere."),
        widget=forms.ClearableFileInput(attrs={"accept": "image/*"}),
    )
    prompt = forms.CharField(
        label=lazy("Prompt"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=lazy("What the masked area should show. Tasks with a fixed prompt need none."),
    )
    size = forms.ChoiceField(
        label=lazy("Size"),
        required=False,
        choices=[(f"{w}x{h}", f"{w} × {h}") for w, h in SIZES],
        help_text=lazy("For tasks that make a picture from the prompt alone."),
    )
    tags = forms.CharField(
        label=lazy("Tags"), required=False, help_text=lazy("Words, separated by commas.")
    )
    licence = forms.CharField(label=lazy("Licence"), required=False, max_length=120)
    attribution = forms.CharField(label=lazy("Attribution"), required=False, max_length=300)

    def __init__(self, *args: Any, projects: QuerySet[Project], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        ProjectField.offer(self, projects)

    def clean_image(self) -> Any:
        return self._decoded("image", images.decode)

    def clean_mask(self) -> Any:
        return self._decoded("mask", images.decode_mask)

    def _decoded(self, field: str, decode: Any) -> Any:
        upload: UploadedFile | None = self.cleaned_data[field]
        if upload is None:
            return None
        try:
            return decode(upload.file, name=upload.name)
        except ImageError as error:
            raise forms.ValidationError(str(error)) from None

    def _size(self) -> tuple[int, int] | None:
        text = self.cleaned_data["size"]
        width, _times, height = text.partition("x")
        return (int(width), int(height)) if text else None

    def save(self, user: User) -> tuple[Source, bool] | None:
        """The stored source and whether it is new, or None with the reason among the errors."""
        data = self.cleaned_data
        tags = {word.strip(): True for word in data["tags"].split(",") if word.strip()}
        try:
            return sources.add_source(
                task=data["task"],
                image=data["image"],
                mask=data["mask"],
                prompt=data["prompt"],
                tags=tags,
                licence=data["licence"],
                attribution=data["attribution"],
                user=user,
                project=data["project"],
                size=self._size(),
            )
        except ImageError as error:
            self.add_error("mask", str(error))
        except SourceError as error:
            self.add_error(None, str(error))
        return None


class Numbers(forms.CharField):
    """Numbers separated by commas, each within bounds, for a JSON list."""

    def __init__(
        self,
        *,
        low: float,
        high: float,
        above_low: bool = False,
        whole: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.low, self.high, self.above_low, self.whole = low, high, above_low, whole

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(f"{number:g}" for number in value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        numbers: list[float] = []
        for word in str(value or "").split(","):
            if not word.strip():
                continue
            try:
                number = int(word) if self.whole else float(word)
            except ValueError:
                kind = _("a whole number") if self.whole else _("a number")
                raise forms.ValidationError(
                    _("“%(word)s” is not %(kind)s.") % {"word": word.strip(), "kind": kind}
                ) from None
            too_low = number <= self.low if self.above_low else number < self.low
            if too_low or not number <= self.high:
                start = _("above") if self.above_low else _("from")
                raise forms.ValidationError(
                    _("%(number)s is out of range: %(start)s %(low)s to %(high)s.")
                    % {
                        "number": f"{number:g}",
                        "start": start,
                        "low": f"{self.low:g}",
                        "high": f"{self.high:g}",
                    }
                )
            numbers.append(number)
        return numbers

    def validate(self, value: Any) -> None:
        if not value:
            raise forms.ValidationError(
                _("Give at least one number; several are drawn from evenly.")
            )

    def run_validators(self, value: Any) -> None:
        """The inherited ones are about strings."""


class Lines(forms.CharField):
    """Strings, one a line, for a JSON list; an empty line is the empty string."""

    widget = forms.Textarea

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        return [line.strip() for line in str(value or "").splitlines()] or [""]

    def validate(self, value: Any) -> None:
        if len(value) != len(set(value)):
            raise forms.ValidationError(_("A line stands there twice."))

    def run_validators(self, value: Any) -> None:
        """The inherited ones are about strings."""


class SamplingPlanForm(forms.ModelForm):
    steps = Numbers(
        low=1, high=1000, whole=True, help_text=lazy("Inference steps, e.g. 20, 28, 50.")
    )
    strength = Numbers(
        low=0,
        high=1,
        above_low=True,
        help_text=lazy("Share of the noise put over the source; 1 is all."),
    )
    guidance_scale = Numbers(
        low=0, high=1000, help_text=lazy("FLUX Fill's own guidance, e.g. 10, 30.")
    )
    true_cfg_scale = Numbers(
        low=1,
        high=100,
        help_text=lazy("1 is without; above it the negative prompt counts, at twice the work."),
    )
    negative_prompts = Lines(
        required=False, strip=False, help_text=lazy("One a line; an empty line is none.")
    )

    class Meta:
        model = SamplingPlan
        fields = [
            "task",
            "candidates_per_set",
            "steps",
            "strength",
            "guidance_scale",
            "true_cfg_scale",
            "negative_prompts",
        ]

    def save_as_next_version(self, made_by: str) -> SamplingPlan:
        """What was learnt of other values says nothing of these: all are equally likely again."""
        self.instance.weights = {}
        return plans.add_version(self.instance, made_by=made_by)


class PolicyForm(forms.ModelForm):
    """A new policy's files are looked at before its row is stored."""

    class Meta:
        model = Policy
        fields = [
            "name",
            "kind",
            "location",
            "revision",
            "transformer",
            "subfolder",
            "adapter",
            "max_pixels",
            "parent",
        ]

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if self.instance.pk or self.errors:
            return data
        if data["kind"] == Policy.Kind.TRAINED and data["parent"] is None:
            self.add_error("parent", _("A trained policy needs the one it was trained from."))
        if data["kind"] != Policy.Kind.EXTERNAL:
            places = ("location", "revision", "transformer", "subfolder", "adapter")
            try:
                self.instance.card = policies.inspect(**{place: data[place] for place in places})
            except policies.PolicyError as error:
                self.add_error("location", str(error))
        return data
