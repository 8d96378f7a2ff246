"""Where a policy's weights are. Free of torch, so that any process can read and write it."""

import re
from dataclasses import dataclass

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
LORA_FILE = "pytorch_lora_weights.safetensors"  # diffusers' usual name


@dataclass(frozen=True)
class PolicySpec:
    """Weights of a policy; hub ids and directories are written alike."""

    location: str  # hub id or directory of a pipeline: transformer/ vae/ text_encoder/ ...
    revision: str | None = None  # of the hub id in `location`
    transformer: str = ""  # other hub id or directory with the transformer, "" = location
    subfolder: str = ""  # the transformer's folder there, "" = "transformer"
    # Directory or file of a LoRA, or hub id, then maybe /folder and /file.safetensors; "" = none.
    adapter: str = ""
