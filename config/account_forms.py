from __future__ import annotations

from typing import Any

from allauth.core import context
from allauth.mfa.base.internal.flows import post_authentication
from django import forms
from django.contrib.auth.models import User
from django.utils.translation import gettext_lazy as _

from config import second_factor
from generation import throttle

WRONG = _("This code is not right, or it was used already. Codes change every half minute.")


def _code(label: Any) -> forms.CharField:
    attributes = {"autocomplete": "one-time-code", "inputmode": "numeric", "spellcheck": "false"}
    return forms.CharField(label=label, max_length=20, widget=forms.TextInput(attrs=attributes))


class CodeForm(forms.Form):
    """A code of the second factor that somebody has."""

    code = _code(_("Code of the app, or a recovery code"))

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user

    def clean_code(self) -> str:
        code: str = self.cleaned_data["code"]
        try:
            found = second_factor.check(self.user, code)
        except second_factor.TooOften as error:
            raise forms.ValidationError(error.spent.said) from None
        if found is None:
            raise forms.ValidationError(WRONG)
        self.authenticator = found
        return code


class LogInCodeForm(CodeForm):
    """What allauth's view asks with at the login."""

    def save(self) -> None:
        post_authentication(context.request, self.authenticator)
        context.request.session[second_factor.HAS_ONE] = True


class SetUpForm(forms.Form):
    """The first code of an app that was just given the secret, and who it is that gives it."""

    password = forms.CharField(
        label=_("Your password"),
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )
    code = _code(_("The code that the app shows"))

    def __init__(self, *args: Any, user: User, secret: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user, self.secret = user, secret
        if not user.has_usable_password():
            del self.fields["password"]

    def clean_password(self) -> str:
        throttle.refuse_guessing(self.user)
        password: str = self.cleaned_data["password"]
        if not self.user.check_password(password):
            raise forms.ValidationError(_("This is not your password."))
        return password

    def clean_code(self) -> str:
        code: str = self.cleaned_data["code"]
        try:
            right = second_factor.is_right(self.secret, self.user, code)
        except second_factor.TooOften as error:
            raise forms.ValidationError(error.spent.said) from None
        if not right:
            raise forms.ValidationError(WRONG)
        return code
