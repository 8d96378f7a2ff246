"""How FLUX lays pictures out as tokens.

A picture of H x W pixels becomes latents of h = H / f, w = W / f (f is the VAE's scale factor), and
every 2 x 2 block of latents becomes one token. FLUX Fill puts three things side by side in a token:
noisy latents, latents of the masked picture, and the mask at pixel resolution.

Shapes: B batch, C latent channels, h x w latent size, S = h / 2 * w / 2 tokens, f scale factor.
The layout is that of diffusers' ``FluxFillPipeline``; a test compares the two.
"""

import torch
from torch import Tensor


def pack_latents(latents: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, S, C * 4)."""
    batch, channels, height, width = latents.shape
    if height % 2 or width % 2:
        raise ValueError(f"Latents of {height} x {width} cannot be packed: both must be even.")
    blocks = latents.view(batch, channels, height // 2, 2, width // 2, 2)
    blocks = blocks.permute(0, 2, 4, 1, 3, 5)  # (B, h/2, w/2, C, 2, 2)
    return blocks.reshape(batch, (height // 2) * (width // 2), channels * 4)


def unpack_latents(tokens: Tensor, height: int, width: int) -> Tensor:
    """(B, S, C * 4) -> (B, C, height, width); height and width count latents, not pixels."""
    batch, _, channels = tokens.shape
    blocks = tokens.view(batch, height // 2, width // 2, channels // 4, 2, 2)
    return blocks.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels // 4, height, width)


def pack_masks(masks: Tensor, scale_factor: int) -> Tensor:
    """(B, 1, H, W) -> (B, S, f * f * 4): every pixel of the mask is kept, none is averaged."""
    batch, _, height, width = masks.shape
    rows, columns = height // scale_factor, width // scale_factor
    blocks = masks[:, 0].reshape(batch, rows, scale_factor, columns, scale_factor)
    blocks = blocks.permute(0, 2, 4, 1, 3)  # (B, f, f, h, w)
    return pack_latents(blocks.reshape(batch, scale_factor * scale_factor, rows, columns))


def image_ids(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Positions (0, row, column) of the tokens of height x width latents: (S, 3)."""
    ids = torch.zeros(height // 2, width // 2, 3, device=device)
    ids[..., 1] += torch.arange(height // 2, device=device)[:, None]
    ids[..., 2] += torch.arange(width // 2, device=device)[None, :]
    return ids.reshape(-1, 3)
