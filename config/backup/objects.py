"""Files by their content: what is there already is not written again."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Container
from pathlib import Path
from typing import IO

BLOCK = 2**20


class Objects:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "objects"

    def path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256

    def has(self, sha256: str, size: int) -> bool:
        try:
            return self.path(sha256).stat().st_size == size
        except FileNotFoundError:
            return False

    def keep(self, file: IO[bytes]) -> tuple[str, int, bool]:
        """Whole or not at all; hash and size of what was copied, and whether it was not there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f".draft-{uuid.uuid4().hex}"
        try:
            sha256, size = copy(file, draft)
            new = not self.has(sha256, size)
            if new:
                self.path(sha256).parent.mkdir(exist_ok=True)
                draft.replace(self.path(sha256))
        finally:
            draft.unlink(missing_ok=True)
        return sha256, size, new

    def forget_all_but(self, needed: Container[str]) -> int:
        """Drop what no backup names; how many bytes that frees."""
        freed = 0
        for path in self.folder.rglob("*"):
            if path.is_file() and path.name not in needed:
                freed += path.stat().st_size
                path.unlink()
        return freed


def copy(file: IO[bytes], into: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with into.open("wb") as out:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
            out.write(block)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest(), size


def hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
