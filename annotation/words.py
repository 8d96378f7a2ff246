"""What the labelling scripts say, in the reader's language."""

from django.utils.translation import gettext as _


def words() -> dict[str, str]:
    return {
        "best": _("best"),
        "worst": _("worst"),
        "better": _("better"),
        "is": _("{dimension}: {part} is {place}"),
        "score": _("{dimension}: {score} of 5"),
        "usable": _("Usable: {answer}"),
        "yes": _("yes"),
        "no": _("no"),
        "no_difference": _("{dimension}: no difference"),
        "cannot_judge": _("{dimension}: can’t judge"),
        "cleared": _("{dimension}: cleared"),
        "all_answered": _("Everything has an answer. Press Enter to submit."),
        "needs": _("{dimension} still needs an answer."),
        "one_left": _("1 dimension to go"),
        "some_left": _("{n} dimensions to go"),
        "wide_mask": _("The edited area reaches across the picture."),
        "unsaved": _("{n} unsaved ↑"),
        "offline": _("Offline · {n} kept here"),
        "offline_none": _("Offline"),
        "saved": _("Saved"),
        "logged_out": _("You are logged out. Your {n} unsent sets are kept in this browser."),
        "log_in": _("Log in again"),
        "refused": _("A set was not stored: {reason}"),
        "look": _("Look at it"),
        "discard": _("Discard my answers"),
        "server_error": _("The server could not store this (error {status}). It is tried again."),
        "held_back": _("{reason} (This is tried again every minute.)"),
        "loading": _("The next set is on its way …"),
        "no_more_offline": _(
            "You are offline and no further set is ready. Your {n} unsent sets are kept in this "
            "browser and go out by themselves when the connection is back."
        ),
        "elsewhere": _("This set was submitted in another window. Here is the next one."),
        "undone": _("Undone. Your answers are back."),
        "nothing_to_undo": _("Nothing can be undone without a connection."),
        "flagged": _("Reported. Thank you; you can go on."),
        "break": _("You have worked {n} minutes without a break. Look away for a moment?"),
        "go_on": _("Go on"),
        "source": _("Source"),
        "compare": _("Compare"),
        "left": _("Left"),
        "right": _("Right"),
        "divider": _("Divider"),
        "close": _("Close"),
        "flicker": _("Hold to see the right one alone"),
    }
