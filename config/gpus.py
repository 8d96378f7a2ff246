"""What the GPUs of this machine have in use, as the driver says: torch is not imported for it."""

from __future__ import annotations

from typing import TypedDict


class Gpu(TypedDict):
    name: str
    used: int  # bytes
    total: int
    busy: int  # percent of the last moment


def found() -> list[Gpu]:
    """Those that the driver shows; none where there is no driver or its library isn't installed."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_read(number) for number in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def _read(number: int) -> Gpu:
    import pynvml

    gpu = pynvml.nvmlDeviceGetHandleByIndex(number)
    memory = pynvml.nvmlDeviceGetMemoryInfo(gpu)
    try:
        busy = int(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu)
    except pynvml.NVMLError:  # a slice of a GPU doesn't say
        busy = 0
    return {
        "name": str(pynvml.nvmlDeviceGetName(gpu)),
        "used": int(memory.used),
        "total": int(memory.total),
        "busy": busy,
    }
