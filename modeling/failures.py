"""Failures that machines bring about, in words: memory, disks, damaged files.

A training that fails leaves one sentence behind. Libraries report a full disk or memory in half a
dozen ways; this module knows them and says what to do.
"""

from __future__ import annotations

import errno
import os
import re

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# How the writers of safetensors (Rust) and of torch.save (C++) put the same.
NO_ROOM_WORDS = re.compile(
    rf"os error ({'|'.join(str(number) for number in NO_ROOM)})\b"
    r"|PytorchStreamWriter failed writing|file write failed|unexpected pos \d+ vs \d+"
    r"|iostream error"
)
# What follows bad_alloc is oneDNN's way to put it.
NO_MEMORY_WORDS = re.compile(
    r"can't allocate memory|not enough memory|bad_alloc"
    r"|could not create a (primitive|memory)|could not execute a primitive"
    r"|can't start new thread",
    re.IGNORECASE,
)
WANTED = re.compile(r"[Tt]ried to allocate ([\d.]+ ?\w+)")


def explain(error: BaseException, *, place: object, resumes: str) -> str:
    """What to tell the person who started the run; "" for an error that is none of the machine's.

    `place` names what is being written, `resumes` where a new start goes on.
    """
    text = str(error)
    if out_of_memory(error):
        return (
            f"The memory ran out{_wanted(text)}. Use smaller batches or pictures (batch_size, "
            "max_pixels), turn on gradient_checkpointing, or end what else uses the memory; then "
            f"start the run again: it goes on {resumes}."
        )
    if no_room(error):
        number = error.errno if isinstance(error, OSError) else _os_error(text)
        reason = os.strerror(number) if number else "a file broke off, as on a full disk"
        return (
            f"'{place}' could not be written: {reason}. Make room on that disk and start the run "
            f"again: it goes on {resumes}."
        )
    if type(error).__name__ == "SafetensorError":
        return (
            f"A file of weights is damaged or cut short ({text}). Restore the model or run "
            "directory that the log names."
        )
    return ""


def out_of_memory(error: BaseException) -> bool:
    # By name: torch takes seconds to import, and whoever raises its error has done so.
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or isinstance(error, RuntimeError) and bool(NO_MEMORY_WORDS.search(str(error)))


def no_room(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    return bool(NO_ROOM_WORDS.search(str(error)))


def _wanted(text: str) -> str:
    if "new thread" in text:
        return ", or the machine allows no more threads"
    found = WANTED.search(text)
    return f" when {found[1]} more were needed" if found else ""


def _os_error(text: str) -> int | None:
    found = re.search(r"os error (\d+)", text)
    return int(found[1]) if found else None
