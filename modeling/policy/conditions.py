"""Conditions of sources: what text encoders and VAE make of them, kept in memory and across runs.

A kept entry's name is a hash of everything its bits depend on: the encoder's weights, the prompt or
the pixels, dtype, kind of device and torch's version. A run that sees a source again then finds
exactly what it would compute. A file that is cut short, altered or not ours counts as absent and is
written again; a full disk costs the cache, not the run.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from generation.diffusion.conditions import encode_images, encode_prompts
from generation.diffusion.loading import FillModels
from modeling.rundir import RunError

WHOLE = 1 << 20  # tensors of up to so many elements are hashed whole, larger ones in part
Pair = tuple[Tensor, Tensor]


def fingerprint(*modules: torch.nn.Module) -> str:
    """A hash of the modules' weights. Of a large tensor a million elements, spread evenly, and the
    sum of all count: T5 in full would take longer than the prompts."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            flat = tensor.detach().flatten()
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            if flat.numel() > WHOLE:
                digest.update(str(float(flat.sum(dtype=torch.float64))).encode())
                flat = flat[:: flat.numel() // WHOLE]
            digest.update(_bytes(flat))
    return digest.hexdigest()


def name_of(*parts: object) -> str:
    """A hash of strings, numbers and bytes, which keeps them apart."""
    digest = hashlib.sha256(torch.__version__.encode())
    for part in parts:
        value = part if isinstance(part, bytes) else json.dumps(part).encode()
        digest.update(f"{len(value)}:".encode() + value)
    return digest.hexdigest()


class ConditionCache:
    """Pairs of tensors by name in `directory`, of which at most `max_bytes` are kept at its
    opening; those that were not read for longest go first."""

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self.directory = directory
        self.hits = self.misses = 0
        self._writes = True
        directory.mkdir(parents=True, exist_ok=True)
        self._trim(max_bytes)

    def get(self, name: str, make: Callable[[], Pair]) -> Pair:
        """The pair (on the CPU) called `name`, made and kept where there is none."""
        found = self.find(name)
        if found is not None:
            self.hits += 1
            return found
        self.misses += 1
        first, second = make()
        made = (first.detach().cpu().contiguous(), second.detach().cpu().contiguous())
        if self._writes:
            self._write(name, made)
        return made

    def find(self, name: str) -> Pair | None:
        return _read(self._path(name), name)

    def _path(self, name: str) -> Path:
        return self.directory / name[:2] / f"{name}.safetensors"

    def _write(self, name: str, pair: Pair) -> None:
        path = self._path(name)
        temporary = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        try:
            path.parent.mkdir(exist_ok=True)
            tensors = {"first": pair[0], "second": pair[1]}
            save_file(tensors, temporary, metadata={"name": name, "digest": _digest(pair)})
            temporary.replace(path)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                temporary.unlink()
            self._writes = False
            warnings.warn(f"Conditions are not kept in '{self.directory}': {error}", stacklevel=2)

    def _trim(self, max_bytes: int) -> None:
        files: list[tuple[float, int, Path]] = []
        for path in self.directory.glob("??/*"):
            try:
                status = path.stat()
            except OSError:
                continue  # another process trims too
            files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


def _read(path: Path, name: str) -> Pair | None:
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = file.metadata() or {}
            if metadata.get("name") != name:
                return None
            pair = (file.get_tensor("first"), file.get_tensor("second"))
        if metadata.get("digest") != _digest(pair):
            return None
        os.utime(path)  # marks it as read
    except (OSError, SafetensorError):
        return None
    return pair


def _digest(pair: Pair) -> str:
    digest = hashlib.sha256()
    for tensor in pair:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().cpu().flatten().view(torch.uint8).numpy().tobytes()


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


K = TypeVar("K")
V = TypeVar("V", bound=Sized)


class Recent(Generic[K, V]):
    """The values that were used last, of `limit` bytes together; safe for several threads."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K, make: Callable[[], V]) -> V:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            if key not in self._values:
                self._values[key] = value
                self.nbytes += value.nbytes
            while self.nbytes > self.limit and len(self._values) > 1:
                self.nbytes -= self._values.popitem(last=False)[1].nbytes
            return value


class Encoder:
    """Prompts and pictures to conditions on the CPU, through the cache where there is one.

    One prompt and one picture at a time: encoded in a batch, bits would depend on the others.
    """

    def __init__(self, models: FillModels, cache: ConditionCache | None = None) -> None:
        self.models = models
        self.cache = cache
        self._prompts: dict[str, Pair] = {}
        self._text = self._vae = ""
        if cache is not None:
            kind = f"{models.device.type} {models.dtype}"
            self._text = fingerprint(models.text_encoder, models.text_encoder_2) + kind
            self._vae = fingerprint(models.vae) + kind

    def remember(self, prompts: Iterable[str]) -> None:
        """Encode prompts while the text encoders are there; without a cache they stay in memory."""
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._prompts:
                pair = self._encode_prompt(prompt)
                if self.cache is None or self.cache.find(self._prompt_name(prompt)) is None:
                    self._prompts[prompt] = pair

    def prompt(self, prompt: str) -> Pair:
        """prompt_embeds (1, T, D) and pooled (1, P) of a remembered prompt."""
        found = self._prompts.get(prompt)
        if found is None and self.cache is not None:
            found = self.cache.find(self._prompt_name(prompt))
        if found is None:
            raise RunError(
                f"The conditions of the prompt {prompt[:60]!r} have gone from the condition cache "
                "while the run needed them: start the run again."
            )
        return found

    def picture(self, pixels: Tensor, mask: Tensor) -> Pair:
        """masked_image and image_latents (1, S, ...) of a picture (1, 3, H, W) and its mask."""

        def make() -> Pair:
            masked_image, image_latents = encode_images(self.models, pixels, mask)
            return masked_image.cpu(), image_latents.cpu()

        if self.cache is None:
            return make()
        shape = list(pixels.shape)
        name = name_of("picture", self._vae, shape, _bytes(pixels), _bytes(mask))
        return self.cache.get(name, make)

    @torch.no_grad()
    def _encode_prompt(self, prompt: str) -> Pair:
        def make() -> Pair:
            embeds, pooled = encode_prompts(self.models, [prompt])
            return embeds.cpu(), pooled.cpu()

        return make() if self.cache is None else self.cache.get(self._prompt_name(prompt), make)

    def _prompt_name(self, prompt: str) -> str:
        return name_of("prompt", self._text, self.models.max_sequence_length, prompt)
