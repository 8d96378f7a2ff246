"""Policy, EMA and reference as roles of one base transformer.

A full training of Algorithm 1 holds three transformers (policy, EMA, frozen reference), which for
FLUX is more than one machine's memory. As LoRA adapters the three share one base: a few percent of
the weights exist three times. The reference is the parent policy: the parent's adapter, or all
adapters switched off when the parent is a base. Full fine-tuning keeps real copies.

The EMA averages A and B of each adapter. That is not the average of the product B @ A, but its
difference is of second order in the distance travelled. EMA weights are fp32: in bf16 an update of
1 - 0.995 of a small difference rounds to nothing.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxFillPipeline, FluxTransformer2DModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from generation.diffusion.loading import load_adapter
from modeling.policy import sharding

POLICY, EMA, REFERENCE, BASE = "policy", "ema", "reference", "base"
# Every linear map of the transformer's blocks except those that make the modulations.
LORA_TARGETS = (
    r"(transformer_blocks|single_transformer_blocks)\.\d+\."
    r"(attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
    r"|ff\.net\.(0\.proj|2)|ff_context\.net\.(0\.proj|2)|proj_mlp|proj_out)"
)


class AdapterRoles:
    """Roles as LoRA adapters of one transformer."""

    output = "adapter"

    def __init__(self, transformer: Any, *, rank: int, parent_adapter: str = "") -> None:
        self.transformer = transformer
        self.has_parent = bool(parent_adapter)
        roles = (POLICY, EMA, REFERENCE) if self.has_parent else (POLICY, EMA)
        with warnings.catch_warnings():
            # Several adapters on one model are the purpose here.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            for role in roles:
                if self.has_parent:
                    load_adapter(transformer, parent_adapter, role)
                else:
                    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=LORA_TARGETS)
                    transformer.add_adapter(config, adapter_name=role)
        self._own = {role: _tensors_of(transformer, role) for role in roles}
        for tensors in self._own.values():
            for parameter in tensors.values():
                parameter.data = parameter.data.float()
        self.update_ema(0.0)
        self._start = {name: p.detach().clone() for name, p in self._own[POLICY].items()}
        self._acting = ""
        self._switch(POLICY)

    def _switch(self, role: str) -> None:
        if role == self._acting:
            return
        if role == BASE or (role == REFERENCE and not self.has_parent):
            self.transformer.disable_adapters()
        else:
            self.transformer.enable_adapters()
            # This marks the role's weights as trainable; only the policy's are in the optimiser.
            self.transformer.set_adapter(role)
        self._acting = role

    @contextmanager
    def acting(self, role: str) -> Iterator[Any]:
        """The transformer with this role's weights; the policy acts again afterwards."""
        self._switch(role)
        try:
            yield self.transformer
        finally:
            self._switch(POLICY)

    def parameters(self) -> list[Tensor]:
        """The policy's trainable weights."""
        return list(self._own[POLICY].values())

    @torch.no_grad()
    def update_ema(self, decay: float) -> None:
        policy = self._own[POLICY]
        for name, average in self._own[EMA].items():
            average.lerp_(policy[name], 1.0 - decay)

    @torch.no_grad()
    def distance(self) -> float:
        """How far the policy's weights have moved from where they started (Euclidean)."""
        moved = [(p - self._start[name]).square().sum() for name, p in self._own[POLICY].items()]
        return float(torch.stack(moved).sum().sqrt())

    def state(self) -> dict[str, Tensor]:
        return {
            f"{role}.{name}": tensor.detach().clone().contiguous()
            for role in (POLICY, EMA)
            for name, tensor in self._own[role].items()
        }

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        for role in (POLICY, EMA):
            for name, tensor in self._own[role].items():
                tensor.copy_(state[f"{role}.{name}"])

    def weights(self, *, keep: bool = True) -> dict[str, Tensor]:
        """The EMA as a LoRA in diffusers' layout, for `save`.

        A parent's scale (alpha / rank) goes into B: the file then needs no metadata, whose order
        in safetensors is random, and the same weights give the same bytes.
        """
        state = get_peft_model_state_dict(self.transformer, adapter_name=EMA)
        layers: dict[str, Tensor] = {}
        for name in sorted(state):
            layer = self.transformer.get_submodule(name.rsplit(".lora_", 1)[0])
            scale = layer.scaling[EMA] if ".lora_B" in name else 1.0
            layers[name] = (state[name] * scale).contiguous()
        return layers

    def save(self, directory: Path, weights: dict[str, Tensor] | None = None) -> None:
        """Write the EMA for `pipe.load_lora_weights`."""
        layers = self.weights() if weights is None else weights
        FluxFillPipeline.save_lora_weights(directory, transformer_lora_layers=layers)


def _tensors_of(transformer: Any, role: str) -> dict[str, Tensor]:
    """An adapter's tensors; its name is taken out of theirs."""
    return {
        name.replace(f".{role}.", "."): parameter
        for name, parameter in transformer.named_parameters()
        if f".{role}." in name and ".lora_" in name
    }


class CopiedRoles:
    """Roles as whole transformers, for full fine-tuning: the policy is the loaded one.

    With `mesh` their weights are divided among its devices (sharding.py); the transformer comes on
    the CPU then.
    """

    output = "transformer"

    def __init__(
        self, transformer: Any, *, parent_adapter: str = "", mesh: DeviceMesh | None = None
    ) -> None:
        if parent_adapter:
            # All weights are trained: the parent's adapter becomes part of them.
            load_adapter(transformer, parent_adapter, POLICY)
            transformer.fuse_lora()
            transformer.unload_lora()
        self._dtype = transformer.dtype
        self._config = dict(transformer.config)

        def placed(model: Any, *, master: bool) -> Any:
            if mesh is not None:
                return sharding.divide(model, mesh, master=master)
            return model.float() if master else model

        # fp32 master weights of the policy, for the reason that the EMA has them.
        self.models = {
            REFERENCE: placed(copy.deepcopy(transformer).requires_grad_(False), master=False),
            EMA: placed(copy.deepcopy(transformer).requires_grad_(False), master=True),
            POLICY: placed(transformer.requires_grad_(True), master=True),
        }

    @contextmanager
    def acting(self, role: str) -> Iterator[Any]:
        """The role's transformer; half-precision activations run under autocast."""
        model = self.models[REFERENCE if role == BASE else role]
        device = next(model.parameters()).device.type
        with torch.autocast(device, dtype=self._dtype, enabled=self._dtype != torch.float32):
            yield model

    def parameters(self) -> list[Tensor]:
        return list(self.models[POLICY].parameters())

    @torch.no_grad()
    def update_ema(self, decay: float) -> None:
        for average, value in zip(
            self.models[EMA].parameters(), self.models[POLICY].parameters(), strict=True
        ):
            average.lerp_(value, 1.0 - decay)

    @torch.no_grad()
    def distance(self) -> float:
        starts = self.models[REFERENCE].parameters()
        pairs = zip(self.models[POLICY].parameters(), starts, strict=True)
        return float(sharding.add_squares(value - start.float() for value, start in pairs).sqrt())

    def state(self) -> dict[str, Tensor]:
        return {
            f"{role}.{name}": tensor.detach().clone().contiguous()
            for role in (POLICY, EMA)
            for name, tensor in self.models[role].state_dict().items()
        }

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        for role in (POLICY, EMA):
            here = self.models[role].state_dict()
            self.models[role].load_state_dict(
                {
                    name: sharding.part_of(state[f"{role}.{name}"], tensor)
                    for name, tensor in here.items()
                }
            )

    @torch.no_grad()
    def weights(self, *, keep: bool = True) -> dict[str, Tensor]:
        """The EMA whole, for `save`. Where it is divided every process must call this, and those
        without `keep` get nothing."""
        found = {
            name: sharding.whole(tensor.to(self._dtype), keep=keep)
            for name, tensor in self.models[EMA].state_dict().items()
        }
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def save(self, directory: Path, weights: dict[str, Tensor] | None = None) -> None:
        """Write the EMA for `FluxTransformer2DModel.from_pretrained`."""
        weights = self.weights() if weights is None else weights
        with torch.device("meta"):
            final = FluxTransformer2DModel.from_config(self._config)
        final.load_state_dict(weights, assign=True)
        final.save_pretrained(directory)


Roles = AdapterRoles | CopiedRoles
