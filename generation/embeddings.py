"""CLIP embeddings of stored pictures, and the pictures that stand best for many.

OneReward's diverse inputs: embed the pictures with CLIP (Radford et al. 2021), cluster them by
K-means on the unit sphere, and take of each cluster the picture nearest its centre. An embedding is
kept on disk by the model and the picture's hash, so that it is computed once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from django.conf import settings
from numpy.typing import NDArray

from generation import images, locations
from generation.models import Image

Floats = NDArray[np.float32]
CLIP = "openai/clip-vit-large-patch14"
TOGETHER = 16  # pictures in one forward
RESTARTS = 4  # of K-means, from other first centres


class EmbeddingError(ValueError):
    """One readable sentence: why nothing can be embedded, and the remedy."""


def embed(
    pictures: Sequence[Image],
    model: str = CLIP,
    progress: Callable[[int, int], None] | None = None,
) -> Floats:
    """(N, D) unit vectors, one a picture in the order given. Raises EmbeddingError."""
    folder = (
        Path(settings.DATA_DIR) / "embeddings" / hashlib.sha256(model.encode()).hexdigest()[:16]
    )
    wanted = {picture.sha256: picture for picture in pictures}
    missing = [one for sha256, one in wanted.items() if not (folder / f"{sha256}.npy").is_file()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        for done, (sha256, vector) in enumerate(_compute(missing, model), start=1):
            _keep(folder / f"{sha256}.npy", vector)
            if progress is not None:
                progress(done, len(missing))
    found: Mapping[str, Floats] = {
        sha256: np.load(folder / f"{sha256}.npy", allow_pickle=False) for sha256 in wanted
    }
    return np.stack([found[picture.sha256] for picture in pictures])


def _compute(pictures: Sequence[Image], model: str) -> Iterator[tuple[str, Floats]]:
    import torch
    import transformers

    if model.startswith(("/", ".", "~")) and not Path(model).expanduser().is_dir():
        raise EmbeddingError(f"There is no directory “{model}”. Give a CLIP model's, or a hub id.")
    location = str(Path(model).expanduser()) if model.startswith("~") else model
    try:
        locations.check(location)
        clip = transformers.CLIPVisionModelWithProjection.from_pretrained(
            location, use_safetensors=True
        ).eval()
        # The one that needs no torchvision.
        processor = transformers.CLIPImageProcessorPil.from_pretrained(location)
    except locations.LocationError as error:
        raise EmbeddingError(str(error)) from None
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise EmbeddingError(f"“{model}” cannot be loaded as a CLIP model: {reason}") from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clip.to(device)
    rest = iter(pictures)
    while batch := list(islice(rest, TOGETHER)):
        shown = [images.open_image(one).convert("RGB") for one in batch]
        pixels = processor(images=shown, return_tensors="pt")["pixel_values"]  # (B, 3, S, S)
        with torch.no_grad():
            vectors = clip(pixel_values=pixels.to(device)).image_embeds  # (B, D)
        unit = torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
        yield from ((one.sha256, vector) for one, vector in zip(batch, unit, strict=True))


def _keep(path: Path, vector: Floats) -> None:
    """Written beside and renamed: whoever is stopped in between leaves no half vector."""
    beside = path.with_suffix(f".{os.getpid()}")
    with beside.open("wb") as file:
        np.save(file, vector, allow_pickle=False)
    beside.replace(path)


def clusters(vectors: Floats, count: int, *, seed: int = 0) -> list[int]:
    """(N,) the cluster of each row by K-means; where fewer rows differ, equal ones are together."""
    firsts, same = np.unique(vectors, axis=0, return_inverse=True)
    if count >= len(firsts):
        return [int(one) for one in same.reshape(-1)]
    return [int(one) for one in _k_means(vectors, count, seed).labels_]


def _k_means(vectors: Floats, count: int, seed: int) -> Any:
    from sklearn.cluster import KMeans

    return KMeans(count, n_init=RESTARTS, random_state=seed).fit(vectors)


def representatives(vectors: Floats, count: int, *, seed: int = 0) -> list[int]:
    """Of each of `count` clusters the row nearest its centre; the largest cluster's first."""
    distinct = len(np.unique(vectors, axis=0))
    if count >= distinct:
        firsts = np.unique(vectors, axis=0, return_index=True)[1]
        return sorted(int(row) for row in firsts)
    found = _k_means(vectors, count, seed)
    distance = np.linalg.norm(vectors - found.cluster_centers_[found.labels_], axis=1)
    clusters = sorted(range(count), key=lambda one: (-int((found.labels_ == one).sum()), one))
    rows = [np.flatnonzero(found.labels_ == one) for one in clusters]
    return [int(of_one[distance[of_one].argmin()]) for of_one in rows if len(of_one)]
