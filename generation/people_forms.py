from __future__ import annotations

from django import forms
from django.contrib.auth.forms import BaseUserCreationForm, PasswordChangeForm
from django.contrib.auth.models import User
from django.utils.translation import gettext_lazy as _

from generation import throttle, tokens
from generation.models import Role, Scope, Verb


class ProjectForm(forms.Form):
    name = forms.CharField(label=_("Name"), max_length=120)
    slug = forms.SlugField(
        label=_("Address"),
        max_length=50,
        help_text=_("Letters, digits and hyphens; it stands in links and commands."),
    )


class MemberForm(forms.Form):
    who = forms.CharField(label=_("Username or e-mail"), max_length=254)
    role = forms.ChoiceField(label=_("Role"), choices=Role.choices, initial=Role.ANNOTATOR)


class RoleForm(forms.Form):
    role = forms.ChoiceField(label=_("Role"), choices=Role.choices)


def _clean_email(email: str, user: User | None) -> str:
    others = User.objects.filter(email__iexact=email)
    if user is not None:
        others = others.exclude(pk=user.pk)
    if email and others.exists():
        # Members are added by e-mail, so it must name one person.
        raise forms.ValidationError(_("Somebody else here has this e-mail."))
    return email


class ProfileForm(forms.ModelForm):
    class Meta:
        model = User
        fields = ["first_name", "last_name", "email"]

    def clean_email(self) -> str:
        return _clean_email(self.cleaned_data["email"], self.instance)


class SignUpForm(BaseUserCreationForm):
    class Meta:
        model = User
        fields = ["username", "email"]

    def clean_username(self) -> str:
        name: str = self.cleaned_data["username"]
        if User.objects.filter(username__iexact=name).exists():
            raise forms.ValidationError(_("Somebody is called that already: choose another name."))
        return name

    def clean_email(self) -> str:
        return _clean_email(self.cleaned_data["email"], None)


class PasswordForm(PasswordChangeForm):
    def clean_old_password(self) -> str:
        throttle.refuse_guessing(self.user)
        return super().clean_old_password()


class TokenForm(forms.Form):
    name = forms.CharField(
        label=_("Name"), max_length=80, help_text=_("What it is for, e.g. “export script”.")
    )
    scopes = forms.MultipleChoiceField(
        label=_("It may"),
        choices=Scope.choices,
        initial=[Scope.READ],
        widget=forms.CheckboxSelectMultiple,
    )
    days = forms.IntegerField(
        label=_("Days until it ends"),
        min_value=1,
        max_value=tokens.MOST_DAYS,
        initial=tokens.USUAL_DAYS,
    )


class AuditFilter(forms.Form):
    actor = forms.CharField(label=_("Who"), required=False)
    verb = forms.ChoiceField(
        label=_("What"),
        required=False,
        choices=[("", _("Everything")), *Verb.choices],
    )
    since = forms.DateField(
        label=_("From"), required=False, widget=forms.DateInput(attrs={"type": "date"})
    )
    until = forms.DateField(
        label=_("To"), required=False, widget=forms.DateInput(attrs={"type": "date"})
    )
