"""What files say, as it stands in a sentence about them."""

import re

# Line breaks among them: a quote that is never closed makes one name of several lines.
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
LONGEST = 255  # as long as a file's name may be


def one_line(text: str) -> str:
    """In one line, and not without end."""
    text = CONTROLS.sub(" ", text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
