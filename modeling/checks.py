"""What the trainings need of this machine, said before they need it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError


@register()
def accelerate_config_exists(**kwargs: Any) -> list[CheckMessage]:
    config = os.environ.get("ACCELERATE_CONFIG", "").strip()
    if not config or Path(config).is_file():
        return []
    return [
        Error(
            f"ACCELERATE_CONFIG names '{config}', which is no file.",
            hint="Write one with `accelerate config --config_file FILE`, or unset the variable.",
            id="modeling.E001",
        )
    ]


@register(Tags.database)
def active_reward_model_is_there(**kwargs: Any) -> list[CheckMessage]:
    """Only with `check --database default`: it reads rows and looks at their files."""
    from modeling.models import RewardModel
    from modeling.runs import RunFailed, check_reward

    if not kwargs.get("databases"):
        return []
    try:
        model = RewardModel.objects.filter(state=RewardModel.State.ACTIVE).first()
        if model is not None:
            check_reward(model)
    except RunFailed as error:
        return [Warning(str(error), id="modeling.W001")]
    except DatabaseError:
        return []  # not migrated yet
    return []
