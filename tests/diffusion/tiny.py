"""Tiny models of the real classes, saved as the libraries save FLUX.1-Fill-dev."""

import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxFillPipeline,
    FluxTransformer2DModel,
)
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
PROMPT_TOKENS = 12
SIZE = 32

# FLUX.1-Fill-dev's own transformer/config.json and vae/config.json.
FLUX_FILL_TRANSFORMER = {
    "patch_size": 1,
    "in_channels": 384,
    "out_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
    "axes_dims_rope": (16, 56, 56),
}
FLUX_VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 16,
    "norm_num_groups": 32,
    "sample_size": 1024,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


def tiny_pipeline(seed: int = 0) -> FluxFillPipeline:
    torch.manual_seed(seed)
    transformer = FluxTransformer2DModel(
        in_channels=96,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        pooled_projection_dim=20,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.8,
        shift_factor=0.1,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=2 * len(LETTERS) + 2,
            hidden_size=20,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=16,
            projection_dim=20,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    text_encoder_2 = T5EncoderModel(
        T5Config(
            vocab_size=4 + len(LETTERS),
            d_model=24,
            d_kv=8,
            d_ff=32,
            num_layers=1,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )
    return FluxFillPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=clip_tokenizer(),
        text_encoder_2=text_encoder_2,
        tokenizer_2=t5_tokenizer(),
        transformer=transformer,
    )


def clip_tokenizer() -> CLIPTokenizer:
    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{c}</w>" for c in LETTERS)]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16)


def t5_tokenizer() -> T5Tokenizer:
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocabulary += [(letter, -3.0) for letter in LETTERS]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=PROMPT_TOKENS)


def save_tiny_policy(directory: Path, seed: int = 0) -> Path:
    tiny_pipeline(seed).save_pretrained(directory)
    return directory


def picture(seed: int, size: int = SIZE) -> Image.Image:
    values = torch.rand(size, size, 3, generator=torch.Generator().manual_seed(seed))
    return Image.fromarray((values * 255).to(torch.uint8).numpy())


def box_mask(size: int = SIZE) -> Image.Image:
    mask = Image.new("L", (size, size), 0)
    mask.paste(255, (size // 4, size // 4, size // 2 + 4, size // 2 + 4))
    return mask


FILL, ONEREWARD = "black-forest-labs/FLUX.1-Fill-dev", "bytedance-research/OneReward"
ONEREWARD_TRANSFORMERS = (
    "flux.1-fill-dev-OneReward-transformer",
    "flux.1-fill-dev-OneRewardDynamic-transformer",
)
REMOVAL_LORA = "flux.1-fill-dev-object-removal-lora"


def save_tiny_onereward(directory: Path) -> Path:
    """The folders of the released OneReward repository, with tiny weights."""
    for seed, folder in enumerate(ONEREWARD_TRANSFORMERS, start=1):
        tiny_pipeline(seed).transformer.save_pretrained(directory / folder)
    save_tiny_lora(directory / REMOVAL_LORA, ["to_q", "to_v"], seed=3)
    return directory


def save_tiny_lora(directory: Path, targets: str | list[str], *, seed: int, alpha: int = 2) -> Path:
    """A LoRA of rank 2 with random weights, as diffusers saves it."""
    pipe = tiny_pipeline()
    torch.manual_seed(seed)
    config = LoraConfig(r=2, lora_alpha=alpha, target_modules=targets, init_lora_weights=False)
    pipe.transformer.add_adapter(config, adapter_name="policy")
    pipe.save_lora_weights(
        directory,
        transformer_lora_layers=get_peft_model_state_dict(pipe.transformer, adapter_name="policy"),
        transformer_lora_adapter_metadata=config.to_dict(),
    )
    return directory


def put_into_hub_cache(cache: Path, repository: str, directory: Path) -> None:
    """Let huggingface_hub find a directory as the repository's main branch, without a network."""
    home = cache / f"models--{repository.replace('/', '--')}"
    commit = "0" * 40
    shutil.copytree(directory, home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
