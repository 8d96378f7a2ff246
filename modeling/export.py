"""Policies and reward models as files for other programs, each with a model card.

A directory appears whole or not at all.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.utils.text import slugify

from generation import shared
from generation.diffusion.spec import HUB_ID
from generation.models import Policy
from modeling import cards, runs
from modeling.models import Evaluation, RewardModel

FORMATS = ("diffusers", "comfyui")
DTYPES = ("float32", "bfloat16", "float16")
SAMPLES = "samples.png"


class ExportError(Exception):
    """One readable sentence: why nothing was written, and the remedy."""


def export_policy(
    policy: Policy,
    directory: Path,
    *,
    form: str = "diffusers",
    merged: bool = False,
    dtype: str = "",
    licence: str = "",
    samples: bool = True,
) -> list[str]:
    """Write the policy's LoRA, or its whole transformer where it has none or with `merged`.

    dtype "" keeps a LoRA's precision and writes a transformer in bfloat16, FLUX's own. Returns the
    names of what was written. Raises ExportError.
    """
    import torch

    from generation.diffusion import export
    from generation.diffusion.spec import PolicySpec

    if policy.kind == Policy.Kind.EXTERNAL:
        raise ExportError(f"'{policy}' is an external system: it has no weights to export.")
    spec = PolicySpec(**shared.local_spec(policy.spec()))
    name = slugify(policy.name) or f"policy-{policy.pk}"
    as_lora = bool(policy.adapter) and not merged
    with _appearing(directory) as draft:
        try:
            runs.check_policy(policy)
            if as_lora:
                wanted = getattr(torch, dtype) if dtype else None
                weights = export.export_lora(spec, draft, form=form, name=name, dtype=wanted)
            else:
                wanted = getattr(torch, dtype or "bfloat16")
                weights = export.export_transformer(spec, draft, form=form, name=name, dtype=wanted)
        except (FileNotFoundError, ValueError, runs.RunFailed) as error:
            raise ExportError(str(error)) from error
        grid = _newest_grid(policy) if samples else None
        if grid is not None:
            shutil.copyfile(grid, draft / SAMPLES)
        text = cards.policy_card(
            policy_facts(policy),
            form=form,
            weights=weights,
            is_lora=as_lora,
            samples=SAMPLES if grid else "",
            licence=licence,
        )
        (draft / "README.md").write_text(text)
        return sorted(path.name for path in draft.iterdir())


def export_reward(model: RewardModel, directory: Path, *, licence: str = "") -> list[str]:
    """Copy the reward model's LoRA, or its whole model where it has none, beside a model card."""
    weights = Path(shared.local(model.adapter or model.location))
    if not weights.is_dir():
        raise ExportError(
            f"'{model}' lies at '{weights}', which is no directory here: a model of the hub is "
            "already where others find it."
        )
    with _appearing(directory) as draft:
        shutil.copytree(weights, draft, dirs_exist_ok=True)
        _forget_place(draft / "adapter_config.json")
        text = cards.reward_card(reward_facts(model), is_lora=bool(model.adapter), licence=licence)
        (draft / "README.md").write_text(text)
        return sorted(path.name for path in draft.iterdir())


def policy_facts(policy: Policy) -> cards.PolicyFacts:
    found = (
        policy.evaluations.filter(kind=Evaluation.Kind.POLICY, parent_policy__isnull=False)
        .select_related("parent_policy")
        .first()
    )
    return cards.PolicyFacts(
        name=policy.name,
        location=policy.location,
        transformer=policy.transformer,
        subfolder=policy.subfolder,
        parent=policy.parent.name if policy.parent else "",
        judge=policy.card.get("reward_model") or "",
        card=policy.card,
        evaluated_against=found.parent_policy.name if found and found.parent_policy else "",
        figures=found.figures if found else {},
    )


def reward_facts(model: RewardModel) -> cards.RewardFacts:
    found = model.evaluations.filter(kind=Evaluation.Kind.REWARD).first()
    return cards.RewardFacts(
        name=model.name,
        location=model.location,
        labels=model.snapshot.counts if model.snapshot else {},
        labels_hash=model.snapshot.content_hash if model.snapshot else "",
        figures=found.figures if found else {},
        excluded=model.excluded,
    )


def _forget_place(config: Path) -> None:
    """peft writes down where its base was loaded from; a path says nothing outside this machine."""
    if not config.is_file():
        return
    values = json.loads(config.read_text())
    if not HUB_ID.match(values.get("base_model_name_or_path") or ""):
        config.write_text(json.dumps(values | {"base_model_name_or_path": ""}, indent=2))


def _newest_grid(policy: Policy) -> Path | None:
    run = getattr(policy, "run", None)
    if run is None:
        return None
    grids = sorted((shared.place(run.directory) / "samples").glob("step-*.png"))
    return grids[-1] if grids else None


@contextmanager
def _appearing(directory: Path) -> Iterator[Path]:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ExportError(f"'{directory}' already holds files. Choose a new or empty directory.")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    except OSError as error:
        raise ExportError(f"'{directory}' cannot be written: {error.strerror}.") from error
    try:
        yield draft
        draft.chmod(0o755)
        draft.rename(directory)
    except OSError as error:
        raise ExportError(f"'{directory}' cannot be written: {error.strerror}.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
