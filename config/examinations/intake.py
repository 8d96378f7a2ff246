"""What takes in pictures from outside."""

from __future__ import annotations

import io

from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from PIL import Image as Pillow

from config.doctor import Finding, broken, examines, ok
from generation import images


@examines(name=_("Reading pictures"), is_slow=True, seconds=30)
def decoders() -> Finding:
    """Have a small picture decoded as an upload is."""
    picture = Pillow.radial_gradient("L").convert("RGB")
    file = io.BytesIO()
    picture.save(file, "PNG")
    try:
        same = images.decode(file.getvalue(), name="test.png") == picture
    except (images.ImageError, OSError) as error:
        reason: object = error
    else:
        if same:
            return ok(_("A picture was decoded in a process of its own."))
        reason = _("it came back with other pixels.")
    return broken(
        format_lazy(_("Pictures from outside cannot be read: {reason}"), reason=str(reason)),
        _(
            "Look at DECODER_MEMORY_MB and DECODER_SECONDS, and at whether this user may start "
            "processes."
        ),
    )
