"""`python -m tests.without_models COMMAND…`: a program where the extra "models" is not installed.

What imports one of its packages fails as on a machine of the web, and what asks whether there is
one is told no.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

MODELS = {
    "accelerate",
    "bitsandbytes",
    "diffusers",
    "peft",
    "sentencepiece",
    "tensorboard",
    "torch",
    "transformers",
}


class WithoutModels(PathFinder):
    @classmethod
    def find_spec(
        cls,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in MODELS:
            return None
        return super().find_spec(fullname, path, target)


def leave_out_models() -> None:
    sys.meta_path[:] = [WithoutModels if one is PathFinder else one for one in sys.meta_path]


if __name__ == "__main__":
    leave_out_models()
    sys.argv = sys.argv[1:]
    module = sys.argv[0]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
