"""Architectures and tokenizers of the starter policy: FLUX.1-Fill's own layout, very small.

A 64 x 64 picture is 16 x 16 latents of 4 channels (4x downsampling), packed 2 x 2 into 64 tokens of
16 channels. The transformer reads 96 channels a token: 16 noisy latents, 16 of the masked picture
and 64 mask pixels, as FLUX.1-Fill reads 384 = 64 + 64 + 256.
"""

import re

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxFillPipeline,
    FluxTransformer2DModel,
)
from tokenizers import pre_tokenizers
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from generation.diffusion.loading import FillModels
from modeling.starter import world

LATENT_CHANNELS = 4
PROMPT_TOKENS = 16
TEXT_WIDTH = 64
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
PUNCTUATION = ".,:;!?'\"()-+/&#%*_"


def world_prompts() -> list[str]:
    """Every wording of the world, with the digits apart."""
    prompts = [f"a {colour} {shape}" for colour in world.COLOURS for shape in world.SHAPES]
    numbers = [f'the number "{a}{b}"' for a in range(10) for b in range(10)]
    return [*prompts, *numbers, world.REMOVAL_PROMPT, world.EXTEND_PROMPT]


def new_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 48),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=world.SIZE,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


def new_transformer() -> FluxTransformer2DModel:
    model = FluxTransformer2DModel(
        patch_size=1,
        in_channels=96,
        out_channels=16,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )
    # Blocks start as the identity, as in DiT: the gates open as they learn.
    for block in [*model.transformer_blocks, *model.single_transformer_blocks]:
        norms = [block.norm1, block.norm1_context] if hasattr(block, "norm1") else [block.norm]
        for norm in norms:
            nn.init.zeros_(norm.linear.weight)
            nn.init.zeros_(norm.linear.bias)
    nn.init.zeros_(model.proj_out.weight)
    nn.init.zeros_(model.proj_out.bias)
    return model


def world_words() -> list[str]:
    words = {word for prompt in world_prompts() for word in re.findall("[a-z]+", prompt)}
    return sorted(words)


def new_t5_tokenizer() -> T5Tokenizer:
    """World words are tokens of their own; any other word is spelled, any other sign unknown."""
    vocab: list[tuple[str, float]] = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    vocab += [(prefix + word, -2.0) for word in world_words() for prefix in ("▁", "") if word[1:]]
    vocab += [("▁a", -2.0), *((letter, -6.0) for letter in LETTERS + PUNCTUATION)]
    # A number's first and last digit are tokens of their own: T5 is slow to learn places.
    vocab += [(piece, -3.0) for digit in "0123456789" for piece in ('"' + digit, digit + '"')]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=PROMPT_TOKENS)


def new_clip_tokenizer() -> CLIPTokenizer:
    """Byte-level BPE: world words are tokens of their own, bytes carry every other text.

    The merges are written down, not trained: training breaks ties differently in every process.
    """
    vocab = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocab[byte] = len(vocab)
        vocab[byte + "</w>"] = len(vocab)
    merges: list[tuple[str, str]] = []
    for word in world_words():
        letters = [*word[:-1], word[-1] + "</w>"]
        for index in range(1, len(letters)):
            pair = ("".join(letters[:index]), letters[index])
            if pair not in merges:
                merges.append(pair)
                vocab.setdefault("".join(pair), len(vocab))
    # BPE takes pairs; the annotation knows only one string.
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=PROMPT_TOKENS)  # type: ignore[arg-type]


def new_t5_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=TEXT_WIDTH,
            d_kv=16,
            d_ff=128,
            num_layers=2,
            num_heads=4,
            relative_attention_num_buckets=16,
            relative_attention_max_distance=32,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def new_clip_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=128,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=PROMPT_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """FLUX.1-Fill-dev's own values."""
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )


def new_models(autoencoder: AutoencoderKL) -> FillModels:
    """A fresh policy around a trained autoencoder; torch's global seed decides the weights."""
    tokenizer, tokenizer_2 = new_clip_tokenizer(), new_t5_tokenizer()
    return FillModels(
        transformer=new_transformer(),
        vae=autoencoder,
        text_encoder=new_clip_encoder(tokenizer),
        text_encoder_2=new_t5_encoder(tokenizer_2),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        scheduler=new_scheduler(),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def pipeline_of(models: FillModels) -> FluxFillPipeline:
    return FluxFillPipeline(
        scheduler=models.scheduler,
        vae=models.vae,
        text_encoder=models.text_encoder,
        tokenizer=models.tokenizer,
        text_encoder_2=models.text_encoder_2,
        tokenizer_2=models.tokenizer_2,
        transformer=models.transformer,
    )
