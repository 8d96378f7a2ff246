"""How the reward VLM is shown an edited picture: plain values, for those who only check them.

`view.py` draws it and imports torch; the web, which checks a round's settings, does without.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ViewConfig:
    """How a picture is shown to the reward VLM."""

    # Outside the mask show the source's own pixels instead of the picture's.
    composite: bool = True
    # Share of grey outside the mask: 0 leaves the surroundings as they are, 1 hides them.
    fade_outside: float = 0.0
    # 0 shows the whole picture; z >= 1 a window z times the mask's bounding box, at full size.
    zoom: float = 0.0
    # 0 shows the two pictures alone; z >= 1 the source, too, before them: a window z times the
    # mask's bounding box (100 is the whole source), with the mask's outline in red.
    context: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.composite, bool):
            raise ValueError(f"view.composite must be true or false, got {self.composite!r}")
        if not 0.0 <= self.fade_outside <= 1.0:
            raise ValueError(f"view.fade_outside must lie in [0, 1], got {self.fade_outside}")
        for name in ("zoom", "context"):
            value = getattr(self, name)
            if value != 0.0 and not 1.0 <= value < math.inf:
                raise ValueError(f"view.{name} must be 0 (off) or at least 1, got {value}")
