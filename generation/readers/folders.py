"""A folder of pictures, each with its mask and its prompt in files beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from generation.readers.rows import OTHER_PICTURES, PICTURES, ReadError, Row

MASK_ENDINGS = ("_mask", "-mask", ".mask")


def read(path: Path) -> Iterator[Row]:
    home = path / "images" if (path / "images").is_dir() else path
    files = [
        file
        for file in sorted(home.iterdir())
        if file.suffix.lower() in PICTURES | OTHER_PICTURES
        and not file.stem.lower().endswith(MASK_ENDINGS)
    ]
    if not files:
        raise ReadError(
            f"There are no pictures in {home}. Put pictures there, each with its mask as "
            "<name>_mask.png or masks/<name>.png."
        )
    for file in files:
        mask = _mask_beside(path, home, file.stem)
        prompt = _prompt_beside(path, home, file.stem)
        yield Row(
            name=file.name,
            image=file,
            image_name=file.name,
            mask=mask,
            mask_name=mask.name if mask else f"{file.stem}_mask.png",
            prompt=prompt,
            external_id=file.name,
        )


def _mask_beside(path: Path, home: Path, stem: str) -> Path | None:
    places = [home / f"{stem}{ending}" for ending in MASK_ENDINGS]
    for folder in (path / "masks", path / "mask", home / "masks"):
        places += [folder / stem, *(folder / f"{stem}{ending}" for ending in MASK_ENDINGS)]
    for place in places:
        # Written out: with_suffix would take the ".v2" of a name for its suffix.
        for suffix in sorted(PICTURES):
            for name in (f"{place.name}{suffix}", f"{place.name}{suffix.upper()}"):
                if (place.parent / name).is_file():
                    return place.parent / name
    return None


def _prompt_beside(path: Path, home: Path, stem: str) -> str:
    for folder in (home, path / "prompts"):
        file = folder / f"{stem}.txt"
        if file.is_file():
            return file.read_text(encoding="utf-8", errors="replace").strip()
    return ""
