"""Model cards: a README.md with the hub's metadata, from what was measured.

A training writes one beside the weights that it gives out, from what it knows at its end; an export
writes one from the platform's rows. Nothing stands in a card that was not measured: a figure that
is missing is said to be missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generation.diffusion.spec import HUB_ID

PAPER = "[OneReward](https://arxiv.org/abs/2508.21066)"
# Terms of bases that are in common use, by the beginning of their hub id.
LICENCES: dict[str, dict[str, Any]] = {
    "black-forest-labs/FLUX.1-schnell": {"license": "apache-2.0"},
    "black-forest-labs/FLUX.1-": {
        "license": "other",
        "license_name": "flux-1-dev-non-commercial-license",
    },
    "bytedance-research/OneReward": {"license": "cc-by-nc-4.0"},
    "Qwen/Qwen2.5-VL-7B": {"license": "apache-2.0"},
    "Qwen/Qwen3-VL": {"license": "apache-2.0"},
}


@dataclass(frozen=True)
class PolicyFacts:
    name: str
    location: str
    transformer: str = ""
    subfolder: str = ""
    parent: str = ""  # "" = registered, not trained here
    judge: str = ""  # the reward model that it was trained against
    # The training's: config, code_version, snapshot, metrics, text_to_image.
    card: Mapping[str, Any] = field(default_factory=dict)
    evaluated_against: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)  # of an evaluation


@dataclass(frozen=True)
class RewardFacts:
    name: str
    location: str
    labels: Mapping[str, int] = field(default_factory=dict)  # how many of what
    labels_hash: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)  # on held-out labels
    excluded: Sequence[Sequence[str]] = ()


def policy_card(
    policy: PolicyFacts,
    *,
    form: str,
    weights: str,
    is_lora: bool,
    samples: str,
    licence: str = "",
    folder: str = "transformer",
) -> str:
    """`weights` and `samples` name files beside the card, `folder` where a transformer lies."""
    plain = bool(policy.card.get("text_to_image"))
    base = policy.transformer if HUB_ID.match(policy.transformer) else policy.location
    head = _metadata(
        base,
        licence=licence,
        library_name="diffusers",
        pipeline_tag="text-to-image" if plain else "image-to-image",
        base_model_relation="adapter" if is_lora else "finetune",
        tags=["flux", *(["lora"] if is_lora else []), "onereward", "preference-learning", form],
    )
    kind = "A LoRA" if is_lora else "A whole transformer"
    parts = [
        head,
        f"# {policy.name}\n\n{kind} for {_shown(base)}, {_origin(policy)}.",
        _training(policy),
        _policy_figures(policy),
        _watched(policy),
    ]
    if samples:
        parts.append(
            "## Samples\n\nHeld-out sources at the end of the training: the source with the edited "
            f"area tinted, the parent, this policy, at the same noise.\n\n![Samples]({samples})"
        )
    place = f', subfolder="{folder}"' if folder else ""
    parts.append(
        _use_of_policy(
            policy, form=form, weights=weights, is_lora=is_lora, plain=plain, own_place=place
        )
    )
    parts.append(
        "## Limits\n\nA reward model stands for the people who labelled, in the tasks and "
        "dimensions above, and for nobody else; what was not measured is not known to be better. "
        "The terms of the base apply."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def reward_card(model: RewardFacts, *, is_lora: bool, licence: str = "") -> str:
    head = _metadata(
        model.location,
        licence=licence,
        library_name="peft" if is_lora else "transformers",
        pipeline_tag="image-text-to-text",
        base_model_relation="adapter" if is_lora else "finetune",
        tags=["reward-model", "onereward", "image-editing", *(["lora"] if is_lora else [])],
    )
    parts = [
        head,
        f"# {model.name}\n\n{'A LoRA for' if is_lora else 'Weights of'} {_shown(model.location)} "
        f"that says which of two edits of a picture is better in one quality, after {PAPER}. "
        "It is shown both edits and one question and answers Yes where the first is better.",
        _labels(model),
        _reward_figures(model),
        _left_out(model),
        _use_of_reward(model, is_lora=is_lora),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(base: str, *, licence: str, **fields: Any) -> str:
    from huggingface_hub import ModelCardData

    terms: Mapping[str, Any] = {"license": licence or "unknown"}
    if not licence:
        terms = next((t for start, t in LICENCES.items() if base.startswith(start)), terms)
    if HUB_ID.match(base):
        fields["base_model"] = base
    else:
        # A directory says nothing outside the machine it is on.
        del fields["base_model_relation"]
    return f"---\n{ModelCardData(**terms, **fields).to_yaml()}\n---"


def _shown(location: str) -> str:
    if HUB_ID.match(location):
        return f"[{location}](https://huggingface.co/{location})"
    return f"the base “{Path(location).name}”"


def _origin(policy: PolicyFacts) -> str:
    if not policy.parent:
        return "registered as it is"
    by = f" against the reward model “{policy.judge}”" if policy.judge else ""
    return f"trained from “{policy.parent}”{by} after {PAPER}"


def _training(policy: PolicyFacts) -> str:
    config = policy.card.get("config") or {}
    if not config:
        return ""
    wanted = (
        "algorithm objective steps batch_size lr lora_rank full_finetune reward_form cap "
        "anchor_weight num_inference_steps max_pixels seed"
    )
    rows = [[f"`{key}`", f"`{config[key]}`"] for key in wanted.split() if key in config]
    facts = [
        f"- {label}: `{policy.card[key]}`"
        for key, label in (
            ("code_version", "Code"),
            ("snapshot", "Labels (content hash of their snapshot)"),
        )
        if policy.card.get(key)
    ]
    return "\n\n".join(
        ["## Training", _table(["setting", "value"], rows), *(["\n".join(facts)] if facts else [])]
    )


# --- figures ---


SIGNS = {
    "reward": "P(Yes) of the training's reward model against the parent",
    "held_out_reward": "P(Yes) of the held-out reward model",
    "drift": "drift of the velocity field, relative to its size",
    "psnr_drop": "lost outside the mask, dB",
    "ssim_drop": "lost outside the mask, structural similarity",
    "roughness": "texture inside the mask, times the parent's",
    "grid": "steps at token borders, times the parent's",
    "diversity": "difference of seeds, times the parent's",
    "adapter_norm": "how far the weights moved",
}


def _watched(policy: PolicyFacts) -> str:
    """What the training saw at its last check."""
    metrics = policy.card.get("metrics") or {}
    signs = metrics.get("monitor") or {}
    rows = [[says, f"{signs[name]:.3f}"] for name, says in SIGNS.items() if name in signs]
    if not rows:
        return ""
    parts = [
        "## At the end of the training\n\nOn a few held-out sources, against the parent at the "
        "same noise. The reward is what was trained on and no evidence of better pictures; the "
        "other signs show whether it was gamed.",
        _table(["sign", "value"], rows),
    ]
    if metrics.get("kept_step") not in (None, metrics.get("step")):
        parts.append(f"The weights are those of step {metrics['kept_step']}, the best check.")
    return "\n\n".join(parts)


def _policy_figures(policy: PolicyFacts) -> str:
    figures = policy.figures
    if not figures:
        return "## Figures\n\nNot measured: the policy was never compared with its parent."
    parts = [
        f"## Figures\n\nAgainst “{policy.evaluated_against}” on {figures.get('n')} held-out "
        "sources, the same noise for both; paired 95 % intervals of the difference."
    ]
    head = ["", "parent", "this", "difference", "95 %", "n"]
    if figures.get("usable"):
        rows = [_compared(task, row, 100, 1) for task, row in figures["usable"].items()]
        parts.append("Usable, %:\n\n" + _table(head, rows))
    scores = [
        _compared(f"{task} × {name}", row, 1, 3)
        for task, row_of in (figures.get("dimensions") or {}).items()
        for name, row in row_of.items()
    ]
    if scores:
        parts.append("Mean score:\n\n" + _table(head, scores))
    outside = figures.get("outside_psnr") or {}
    if outside.get("n"):
        rows = [_compared("outside the mask", outside, 1, 1)]
        parts.append("Likeness to the source outside the mask, dB:\n\n" + _table(head, rows))
    if figures.get("win_tie_lose"):
        win, tie, lose = (f"{100 * share:.0f} %" for share in figures["win_tie_lose"])
        parts.append(f"Better {win}, alike {tie}, worse {lose} of the sources.")
    judged = figures.get("margin") or {}
    if judged:
        rows = [
            [task, f"{r['mean']:+.2f}", f"{r['low']:+.2f} … {r['high']:+.2f}", str(r["n"])]
            for task, r in judged.items()
        ]
        parts.append(
            f"Log-odds of “{judged[next(iter(judged))]['judge']}” for this policy's pictures; a "
            "reward model's liking is no evidence by itself.\n\n"
            + _table(["", "mean", "95 %", "n"], rows)
        )
    return "\n\n".join(parts)


def _compared(name: str, row: Mapping[str, Any], scale: float, digits: int) -> list[str]:
    def number(key: str, sign: str = "") -> str:
        value = row.get(key)
        return "–" if value is None else f"{scale * value:{sign}.{digits}f}"

    interval = f"{number('low', '+')} … {number('high', '+')}"
    return [
        name,
        number("parent"),
        number("new"),
        number("difference", "+"),
        interval,
        str(row["n"]),
    ]


def _labels(model: RewardFacts) -> str:
    if not model.labels_hash:
        return ""
    counts = ", ".join(f"{count} {name}" for name, count in model.labels.items())
    return f"## Labels\n\n{counts}. Content hash: `{model.labels_hash}`."


def _reward_figures(model: RewardFacts) -> str:
    figures = model.figures
    if not figures:
        return "## Figures\n\nNot measured: the model was never evaluated on held-out labels."
    rows = [
        [f"{task} × {name}", *_share(cell)]
        for task, row in figures["reward_accuracy"].items()
        for name, cell in row.items()
    ]
    if (figures.get("overall") or {}).get("n"):
        rows.append(["all", *_share(figures["overall"])])
    lines = [
        f"- {label}: {figures[key]:.3f}"
        for key, label in (
            ("prompt_swap_accuracy", "Prompt swaps decided rightly"),
            ("position_consistency", "Same answer in both orders"),
            ("calibration_error", "Expected calibration error"),
        )
        if figures.get(key) is not None
    ]
    return (
        "## Figures\n\nAccuracy on held-out pairs of best and worst, %, with 95 % intervals.\n\n"
        + _table(["task × dimension", "accuracy", "95 %", "n"], rows)
        + "\n\n"
        + "\n".join(lines)
    )


def _share(cell: Mapping[str, Any]) -> list[str]:
    return [
        f"{100 * cell['accuracy']:.1f}",
        f"{100 * cell['low']:.1f} … {100 * cell['high']:.1f}",
        str(cell["n"]),
    ]


def _left_out(model: RewardFacts) -> str:
    if not model.excluded:
        return ""
    lines = [f"- {task} × {name}: {reason}" for task, name, reason in model.excluded]
    return "## Not to be trusted\n\n" + "\n".join(lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# --- how to load ---


def _use_of_policy(
    policy: PolicyFacts, *, form: str, weights: str, is_lora: bool, plain: bool, own_place: str
) -> str:
    if form == "comfyui":
        if is_lora:
            return (
                f"## In ComfyUI\n\nPut `{weights}` into `ComfyUI/models/loras` and choose it in "
                "the node *LoraLoaderModelOnly*, strength 1.0, behind the base's *Load Diffusion "
                "Model*. `pipe.load_lora_weights` of diffusers reads the same file."
            )
        return (
            f"## In ComfyUI\n\nPut `{weights}` into `ComfyUI/models/diffusion_models` and choose "
            "it in the node *Load Diffusion Model*; text encoders and VAE are the base's."
        )
    pipeline = "FluxPipeline" if plain else "FluxFillPipeline"
    location = policy.location if HUB_ID.match(policy.location) else "DIRECTORY_OF_THE_BASE"
    own = bool(policy.transformer) or not is_lora
    names = ["FluxTransformer2DModel"] if own else []
    lines = ["import torch", f"from diffusers import {', '.join([pipeline, *names])}", ""]
    if own:
        place, inside = "THIS_DIRECTORY", own_place
        if is_lora:
            known = HUB_ID.match(policy.transformer)
            place = policy.transformer if known else "DIRECTORY_OF_THE_TRANSFORMER"
            inside = f', subfolder="{policy.subfolder or "transformer"}"'
        lines += [
            "transformer = FluxTransformer2DModel.from_pretrained(",
            f'    "{place}"{inside}, torch_dtype=torch.bfloat16',
            ")",
        ]
    given = ", transformer=transformer" if own else ""
    lines += [
        f"pipe = {pipeline}.from_pretrained(",
        f'    "{location}"{given}, torch_dtype=torch.bfloat16',
        ")",
    ]
    if is_lora:
        lines.append('pipe.load_lora_weights("THIS_DIRECTORY")')
    return "## In diffusers\n\n```python\n" + "\n".join(lines) + "\n```"


def _use_of_reward(model: RewardFacts, *, is_lora: bool) -> str:
    base = model.location if HUB_ID.match(model.location) else "DIRECTORY_OF_THE_BASE"
    first = f'"{base}", adapter="THIS_DIRECTORY"' if is_lora else '"THIS_DIRECTORY"'
    return (
        "## How to ask it\n\n```python\nfrom modeling.reward.scoring import margins\n"
        "from modeling.reward.vlm import load_reward_vlm\n\n"
        f"vlm = load_reward_vlm({first})\n"
        "# (1, 3, H, W) in [0, 1]; log-odds that the first picture is the better one\n"
        "margins(vlm, first, second, [[query]])\n```\n\n"
        "`reward.json` holds the view it was trained with and its temperature."
    )
