"""Names that candidate sets and turns keep when they leave a database and enter another.

A row that came from elsewhere keeps the name it came with, in its `uid`; a row made here is named
after the installation and its number. So what is exported, imported elsewhere and exported again
is the same. Callers with many rows ask for the installation once and pass it.
"""

from __future__ import annotations

from hashlib import sha1
from uuid import UUID

from generation.installation import installation

# What a policy was where it comes from, in its card: here it cannot make anything.
CAME_AS = "came_as"


def set_uid(pk: int, uid: UUID | str | None, *, of: UUID | None = None) -> str:
    return str(uid) if uid else _derived(of or installation(), f"set/{pk}")


def turn_uid(pk: int, uid: UUID | str | None, *, of: UUID | None = None) -> str:
    return str(uid) if uid else _derived(of or installation(), f"turn/{pk}")


def _derived(namespace: UUID, name: str) -> str:
    """`str(uuid.uuid5(namespace, name))` in a third of its time: a million rows ask for it."""
    digest = bytearray(sha1(namespace.bytes + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
