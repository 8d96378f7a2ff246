import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
# Each layer may import itself and what stands after it.
LAYERS = ["config", "modeling", "annotation", "generation"]
WITHOUT_DJANGO = ["generation/diffusion", "modeling/reward", "modeling/policy", "modeling/starter"]
DJANGO_SIDE = {"django", "rest_framework", "celery", "config", "annotation", "django_htmx"}


def modules(directory: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((REPOSITORY / directory).rglob("*.py")):
        yield path.relative_to(REPOSITORY), ast.parse(path.read_text())


def imported(path: Path, tree: ast.Module) -> set[str]:
    """Full dotted names of everything imported anywhere in the file, functions included."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.parts[: len(path.parts) - node.level] if node.level else ()
            base = ".".join([*package, *([node.module] if node.module else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("layer", LAYERS)
def test_it_imports_downwards_only(layer: str) -> None:
    above = set(LAYERS[: LAYERS.index(layer)])
    upward = [
        f"{path} imports {name}"
        for path, tree in modules(layer)
        for name in sorted(imported(path, tree))
        if name.split(".")[0] in above
    ]
    assert upward == []


@pytest.mark.parametrize("package", WITHOUT_DJANGO)
def test_it_keeps_django_out_of_the_torch_packages(package: str) -> None:
    django_modules = {"models", "views", "admin", "forms", "urls", "jobs", "apps"}
    found = []
    for path, tree in modules(package):
        for name in sorted(imported(path, tree)):
            top, _, rest = name.partition(".")
            is_row_side = top in {"generation", "modeling"} and rest.split(".")[0] in django_modules
            if top in DJANGO_SIDE or is_row_side:
                found.append(f"{path} imports {name}")
    assert found == []


def test_it_serves_every_page_without_torch() -> None:
    program = """
import sys
from config.wsgi import application
from django.contrib import admin
from django.urls import get_resolver

def load(resolver):
    for pattern in resolver.url_patterns:
        if hasattr(pattern, "url_patterns"):
            load(pattern)
        else:
            assert callable(pattern.callback)

load(get_resolver())
assert admin.site._registry
heavy = {"torch", "diffusers", "transformers", "peft", "accelerate", "datasets", "pyarrow"}
print(sorted(heavy & set(sys.modules)))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_it_registers_jobs_without_torch() -> None:
    """Workers of the default queue stay small; a job imports torch when it runs."""
    program = """
import sys
import django
django.setup()
from config.celery import app
app.loader.import_default_modules()
print(sorted({"torch", "diffusers", "transformers"} & set(sys.modules)))
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={"DJANGO_SETTINGS_MODULE": "config.settings", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"
