"""First stage of the starter policy: the autoencoder.

Small autoencoders with group norms are slow to find even plain colours: every norm takes away the
mean that says which colour it is. So this one starts where colours already pass: convolutions that
carry their input on, biases that keep the norms' statistics steady, and both ends solved by least
squares. From there it learns detail, with noise on the latents so that the decoder forgives what a
policy gets slightly wrong.
"""

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from modeling.starter import truth, world
from modeling.starter.flaws import sample_flawed
from modeling.starter.policy_models import new_autoencoder
from modeling.starter.training import Loop, Pixels, as_pictures, as_pixels

LATENT_NOISE = 0.1
BATCH = 16
CROP = 32
RATES = (1e-3, 8e-4, 8e-4)
DECODER = 2


def _clouds(rng: np.random.Generator) -> Pixels:
    """Smooth random colours at a random scale: pictures that are not of this world."""
    side = int(rng.choice([4, 8, 16, 32]))
    small = torch.from_numpy(rng.normal(128, 60, (1, 3, side, side)).astype(np.float32))
    wide = F.interpolate(small, size=(world.SIZE, world.SIZE), mode="bicubic")[0]
    return world.to_pixels(wide.permute(1, 2, 0).numpy())


def picture(rng: np.random.Generator) -> Pixels:
    """One picture to reconstruct (64, 64, 3): mostly answers, clean or flawed, and sources."""
    kind = rng.random()
    if kind < 0.06:
        return _clouds(rng)
    example = world.sample_example(rng, world.TASKS[int(rng.integers(len(world.TASKS)))])
    if kind < 0.6:
        return example.target
    if kind < 0.75:
        dimensions = world.DIMENSIONS[example.task]
        flaw = dimensions[int(rng.integers(len(dimensions)))]
        return sample_flawed(rng, example, [flaw], severity=float(rng.uniform(0.1, 1)))
    if kind < 0.85:
        # What the policy is conditioned on: 0 in [-1, 1], the middle grey, under the mask.
        return np.where((example.mask > 0)[..., None], np.uint8(128), example.image)
    return example.image


def batch(seed: int, step: int) -> Tensor:
    """Pictures (16, 3, 32, 32) in [-1, 1], crops of four; in one step of ten (4, 3, 64, 64)."""
    rng = np.random.default_rng([seed, 1, step])
    pictures = as_pictures(np.stack([picture(rng) for _ in range(BATCH // 4)]))
    if rng.random() < 0.1:
        return pictures
    crops = []
    for index in range(BATCH):
        y, x = (int(v) for v in rng.integers(0, world.SIZE - CROP + 1, 2))
        crops.append(pictures[index % len(pictures), :, y : y + CROP, x : x + CROP])
    return torch.stack(crops)


def sample_pictures(seed: int, count: int) -> Tensor:
    """Perfect answers (B, 3, 64, 64) in [-1, 1] to all tasks in turn."""
    rng = np.random.default_rng([seed, 9])
    examples = [world.sample_example(rng, world.TASKS[k % 5]) for k in range(count)]
    return as_pictures(np.stack([one.target for one in examples]))


# --- the start ---


def _seen_by(conv: nn.Conv2d, model: nn.Module, *inputs: Tensor) -> Tensor:
    """What reaches the 3 x 3 convolution `conv` when `model` runs: (B, C * 9, h * w)."""
    caught: list[Tensor] = []
    hook = conv.register_forward_pre_hook(lambda _, received: caught.append(received[0]))
    model(*inputs)
    hook.remove()
    return F.unfold(caught[0], 3, padding=1)


def _solve(conv: nn.Conv2d, columns: Tensor, wanted: Tensor) -> None:
    """Least squares: the first outputs of `conv` become `wanted` (B, O, h, w)."""
    rows = columns.transpose(1, 2).reshape(-1, columns.shape[1]).double()
    rows = torch.cat([rows, torch.ones(len(rows), 1).double()], 1)
    values = wanted.flatten(2).transpose(1, 2).reshape(len(rows), -1).double()
    ridge = 1e-3 * len(rows) * torch.eye(rows.shape[1]).double()
    found = torch.linalg.solve(rows.T @ rows + ridge, rows.T @ values).float()
    outputs = values.shape[1]
    conv.weight[:outputs] = found[:-1].T.reshape(outputs, *conv.weight.shape[1:])
    assert conv.bias is not None
    conv.bias[:outputs] = found[-1]


def _steady_bias(conv: nn.Conv2d) -> None:
    """+1 and -1 in turn: variance for the norms that does not depend on the picture."""
    assert conv.bias is not None
    conv.bias.copy_(1.0 - 2.0 * (torch.arange(len(conv.bias)) % 2))


def _pass_through(vae: AutoencoderKL) -> None:
    """Residual blocks add nothing yet, and convolutions between them carry their input on."""
    for name, module in vae.named_modules():
        if name.endswith(".conv2"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        elif name.endswith("downsamplers.0.conv"):
            module.weight.mul_(0.3)
            for channel in range(len(module.weight)):
                module.weight[channel, channel, :2, :2] += 0.25
        elif name.endswith(("conv_shortcut", "upsamplers.0.conv")):
            module.weight.mul_(0.3)
            module.weight.add_(nn.init.dirac_(torch.empty_like(module.weight)))
    first = vae.encoder.conv_in
    first.weight.add_(nn.init.dirac_(torch.empty_like(first.weight)))
    _steady_bias(first)


@torch.no_grad()
def start(vae: AutoencoderKL, pictures: Tensor) -> None:
    """Changes a fresh autoencoder so that the mean colour of every 4 x 4 patch passes through."""
    _pass_through(vae)
    channels = vae.config.latent_channels
    last = vae.encoder.conv_out
    # The posterior's spread is of no use here: it is kept constant and small.
    last.weight[channels:] = 0
    assert last.bias is not None
    last.bias[channels:] = -10
    grey = pictures.mean(1, keepdim=True)
    edges = F.avg_pool2d(grey[..., :, 1:] - grey[..., :, :-1], 4, 4, ceil_mode=True)
    wanted = torch.cat([F.avg_pool2d(pictures, 4), edges[..., : world.SIZE // 4]], 1)[:, :channels]
    wanted = wanted - wanted.mean((0, 2, 3), keepdim=True)
    wanted = wanted / wanted.std((0, 2, 3), keepdim=True)
    _solve(last, _seen_by(last, vae.encoder, pictures), wanted)
    latents = vae.encode(pictures).latent_dist.mode()
    entry = vae.decoder.conv_in
    assert entry.bias is not None
    entry.bias.zero_()
    entry.weight.div_(entry(latents).std())
    _steady_bias(entry)
    _solve(vae.decoder.conv_out, _seen_by(vae.decoder.conv_out, vae.decoder, latents), pictures)


# --- training ---


def reconstruction_loss(vae: AutoencoderKL, pictures: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    latents = vae.encode(pictures).latent_dist.mode()
    noisy = latents + LATENT_NOISE * torch.randn(latents.shape, generator=generator)
    decoded = vae.decode(noisy).sample
    loss = F.l1_loss(decoded, pictures) + F.mse_loss(decoded, pictures)
    # Keeps the latents near unit scale, so that the noise keeps its meaning.
    return loss + 2e-3 * F.relu(latents.abs() - 2.5).square().mean() + 1e-3 * latents.mean() ** 2


def _train(vae: AutoencoderKL, loop: Loop, seed: int, stage: int, steps: int) -> None:
    rate = RATES[stage]
    trained = vae.decoder if stage == DECODER else vae
    parameters = list(trained.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.995))

    def step(index: int) -> float:
        for group in optimizer.param_groups:
            group["lr"] = rate * min((index + 1) / 20, 1.0) * (1 - index / steps)
        number = stage * 1_000_000 + index
        loss = reconstruction_loss(vae, batch(seed, number), seed * 1_000_003 + number)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return float(loss.detach())

    loop.run({"vae": vae}, optimizer, steps, step)


def build_autoencoder(loops: Sequence[Loop], seed: int, steps: Sequence[int]) -> AutoencoderKL:
    """The trained autoencoder, its latents' mean and deviation in its config.

    Two rounds train all of it, the second from a lower rate; the third only the decoder.
    """
    torch.manual_seed(seed)
    vae = new_autoencoder()
    start(vae, sample_pictures(seed + 1, 40))
    for stage, (loop, count) in enumerate(zip(loops, steps, strict=True)):
        if stage == DECODER:
            vae.encoder.requires_grad_(False)
        _train(vae, loop, seed, stage, count)
    vae.eval().requires_grad_(False)
    latents = vae.encode(sample_pictures(seed, 200)).latent_dist.mode()
    vae.register_to_config(
        scaling_factor=float(1 / latents.std()), shift_factor=float(latents.mean())
    )
    return vae


@torch.no_grad()
def round_trip(vae: AutoencoderKL, seed: int, count: int) -> dict[str, float]:
    """PSNR in dB of perfect answers after the round trip, and how many are still usable."""
    rng = np.random.default_rng([seed, 8])
    examples = [world.sample_example(rng, world.TASKS[k % 5]) for k in range(count)]
    pictures = as_pictures(np.stack([one.target for one in examples]))
    decoded = torch.cat(
        [vae.decode(vae.encode(part).latent_dist.mode()).sample for part in pictures.split(20)]
    ).clamp(-1, 1)
    usable = [
        truth.usable(truth.score(pixels, one.scene))
        for pixels, one in zip(as_pixels(decoded), examples, strict=True)
    ]
    error = F.mse_loss(decoded / 2, pictures / 2)
    return {"psnr_db": float(-10 * error.log10()), "usable": float(np.mean(usable)), "n": count}
