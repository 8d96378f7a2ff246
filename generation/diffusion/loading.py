"""Loads a Fill policy: a pipeline in diffusers' layout, maybe another transformer, maybe a LoRA.

The same lines load FLUX.1-Fill-dev, its fine-tunes, the starter policy, and FLUX.1-dev, which makes
pictures from a prompt alone: `FluxPipeline` has the same parts under the same names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxFillPipeline,
    FluxTransformer2DModel,
)
from torch import Tensor

from generation.diffusion.spec import LORA_FILE, PolicySpec

__all__ = [
    "LONGEST_PROMPT_TOKENS",
    "FillModels",
    "PolicySpec",
    "adapter_weights",
    "load_adapter",
    "load_models",
    "load_transformer",
    "models_of",
]

# T5 inputs longer than this are refused by diffusers' own pipeline.
LONGEST_PROMPT_TOKENS = 512


@dataclass
class FillModels:
    """The components of a Fill pipeline, on one device."""

    transformer: FluxTransformer2DModel
    vae: AutoencoderKL
    text_encoder: Any  # CLIPTextModel
    text_encoder_2: Any  # T5EncoderModel
    tokenizer: Any
    tokenizer_2: Any
    scheduler: FlowMatchEulerDiscreteScheduler
    device: torch.device
    dtype: torch.dtype

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent, on a side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def size_multiple(self) -> int:
        """Sides of pictures are multiples of this: a token is 2 x 2 latents."""
        return 2 * self.vae_scale_factor

    @property
    def max_sequence_length(self) -> int:
        """T5 tokens per prompt. Padding is attended, so one length is used everywhere."""
        return min(self.tokenizer_2.model_max_length, LONGEST_PROMPT_TOKENS)


def load_models(
    spec: PolicySpec,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    quantization_config: Any = None,
) -> FillModels:
    """All components, frozen and in eval mode, the adapter active in the transformer.

    `quantization_config` is diffusers' own, for the transformer.

    Raises FileNotFoundError naming what is missing.
    """
    components: dict[str, Any] = {}
    if spec.transformer or spec.subfolder or quantization_config is not None:
        components["transformer"] = load_transformer(
            spec, dtype=dtype, quantization_config=quantization_config
        )
    _check_directory(spec.location, "model_index.json", "policy")
    _check_components(spec.location, given=set(components))
    try:
        pipeline = FluxFillPipeline.from_pretrained(
            spec.location,
            revision=spec.revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            **components,
        )
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"No Fill pipeline could be loaded from {spec.location!r}: {error} Give a directory in "
            "diffusers' layout or the id of a repository on the hub."
        ) from error
    if spec.adapter:
        load_adapter(pipeline.transformer, spec.adapter, "policy")
    models = models_of(pipeline, device=device, dtype=dtype)
    for module in (models.transformer, models.vae, models.text_encoder, models.text_encoder_2):
        module.to(models.device).eval().requires_grad_(False)
    return models


def models_of(
    pipeline: FluxFillPipeline, *, device: torch.device | str, dtype: torch.dtype
) -> FillModels:
    """The components of a pipeline that is already loaded."""
    return FillModels(
        transformer=pipeline.transformer,
        vae=pipeline.vae,
        text_encoder=pipeline.text_encoder,
        text_encoder_2=pipeline.text_encoder_2,
        tokenizer=pipeline.tokenizer,
        tokenizer_2=pipeline.tokenizer_2,
        scheduler=pipeline.scheduler,
        device=torch.device(device),
        dtype=dtype,
    )


def load_transformer(
    spec: PolicySpec, *, dtype: torch.dtype, quantization_config: Any = None
) -> FluxTransformer2DModel:
    """The transformer a spec names, without adapter."""
    location = spec.transformer or spec.location
    subfolder = spec.subfolder or "transformer"
    _check_directory(location, f"{subfolder}/config.json", "transformer")
    revision = spec.revision if location == spec.location else None
    try:
        return FluxTransformer2DModel.from_pretrained(
            location,
            subfolder=subfolder,
            revision=revision,
            dtype=dtype,
            quantization_config=quantization_config,
            use_safetensors=True,
        )
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"No transformer could be loaded from folder {subfolder!r} of {location!r}: {error}"
        ) from error


def load_adapter(transformer: FluxTransformer2DModel, location: str, name: str) -> None:
    """Adds the LoRA at `location` to a transformer as the active adapter `name`."""
    state, alphas, metadata = _read_adapter(location)
    FluxFillPipeline.load_lora_into_transformer(
        state,
        network_alphas=alphas,
        transformer=transformer,
        adapter_name=name,
        metadata=metadata,
    )


def adapter_weights(location: str) -> dict[str, Tensor]:
    """The LoRA at `location` as `transformer.<module>.lora_A.weight` (r, i) and `.lora_B.weight`
    (o, r), with its scale (alpha / r) multiplied into B."""
    state, alphas, metadata = _read_adapter(location)
    known = {key.removeprefix("transformer."): value for key, value in (metadata or {}).items()}
    if known.get("use_rslora") or known.get("use_dora"):
        raise ValueError(f"The LoRA in {location!r} is an rsLoRA or a DoRA, which is not read.")
    weights: dict[str, Tensor] = {}
    for key, tensor in state.items():
        module, _, kind = key.rpartition(".lora_")
        if not module.startswith("transformer."):
            continue  # of a text encoder, which no policy has a LoRA for
        if kind == "B.weight":
            rank = tensor.shape[1]
            alpha = known.get("lora_alpha", rank)
            alpha = (known.get("alpha_pattern") or {}).get(
                module.removeprefix("transformer."), alpha
            )
            tensor = tensor * (float((alphas or {}).get(f"{module}.alpha", alpha)) / rank)
        weights[key] = tensor
    return weights


def _read_adapter(location: str) -> tuple[dict[str, Tensor], Any, Any]:
    """State, alphas and metadata of a LoRA in any layout that diffusers knows; no pickles."""
    location, arguments = adapter_place(location)
    try:
        state, alphas, metadata = FluxFillPipeline.lora_state_dict(
            location,
            return_alphas=True,
            return_lora_metadata=True,
            use_safetensors=True,
            **arguments,
        )
    except (OSError, ValueError) as error:
        raise FileNotFoundError(f"No LoRA could be read from {location!r}: {error}") from error
    return state, alphas, metadata


def adapter_place(location: str) -> tuple[str, dict[str, str]]:
    """Directory, file or hub id of a LoRA, and diffusers' arguments that find it there.

    On the hub it is `owner/repository`, `…/folder` or `…/folder/file.safetensors`; without a file's
    name it is diffusers' usual one, since diffusers' own guess looks in all folders.
    """
    if Path(location).exists():
        return location, {}
    if Path(location).is_absolute() or len(location.split("/")) < 2:
        raise FileNotFoundError(
            f"The adapter directory {location!r} does not exist: check the policy's adapter, "
            "or leave it empty."
        )
    owner, repository, *folders = location.split("/")
    name = folders.pop() if location.endswith(".safetensors") else LORA_FILE
    arguments = {"weight_name": name}
    if folders:
        arguments["subfolder"] = "/".join(folders)
    return f"{owner}/{repository}", arguments


def _check_directory(location: str, expected: str, what: str) -> None:
    """A path on this disk is checked here: the libraries would ask the hub for it instead."""
    path = Path(location)
    looks_local = path.is_absolute() or location.startswith((".", "~")) or path.exists()
    if looks_local and not (path / expected).is_file():
        raise FileNotFoundError(
            f"No {what} in {location!r}: {expected} is missing there. Check the location, or build "
            "or download the checkpoint first."
        )


def _check_components(location: str, given: set[str]) -> None:
    index = Path(location) / "model_index.json"
    if not index.is_file():
        return  # on the hub
    for name, value in json.loads(index.read_text()).items():
        is_component = isinstance(value, list) and value[0] is not None and name not in given
        if is_component and not (Path(location) / name).is_dir():
            raise FileNotFoundError(
                f"The pipeline in {location!r} has no folder {name!r}, which its model_index.json "
                "names: copy or build the checkpoint again."
            )
