"""No code of the program runs text, unpickles, starts a shell, or loads what brings code along."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.test_architecture import LAYERS, REPOSITORY, modules

RUN_TEXT = {"eval", "exec", "compile", "__import__"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
UNPACK = {"extractall", "unpack_archive"}
UNPICKLE = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
XML = {"xml.etree", "xml.dom", "xml.sax", "xml.parsers", "lxml"}
UNSAFE_YAML = {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"}
WEIGHTS = ("Model", "ModelWithProjection", "Pipeline", "Transformer2DModel", "ImageTextToText")


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def says(call: ast.Call, name: str, value: object) -> bool:
    return any(
        one.arg == name and isinstance(one.value, ast.Constant) and one.value.value is value
        for one in call.keywords
    )


def unsafe(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from unsafe_import(node)
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            last = name.rpartition(".")[2]
            for broken, reason in [
                (name in RUN_TEXT, "runs text"),
                (name in SHELLS, "starts a shell"),
                (any(one.arg == "shell" for one in node.keywords), "may start a shell"),
                (name.startswith(("subprocess.", "os.exec", "os.spawn")) and is_text(node), "text"),
                (name == "torch.load" and not says(node, "weights_only", True), "unpickles"),
                (last == "load" and name.startswith("np.") and not no_pickles(node), "unpickles"),
                (last == "save" and name.startswith("np.") and not no_pickles(node), "pickles"),
                (name in UNSAFE_YAML, "makes objects of YAML"),
                (last in UNPACK, "unpacks to names of an archive"),
                (name == "tempfile.mktemp", "is a race"),
                (any(one.arg == "trust_remote_code" for one in node.keywords)
                 and not says(node, "trust_remote_code", False), "runs a model's code"),
                (last == "from_pretrained" and loads_unsafely(node, name), "may load code"),
            ]:  # fmt: skip
                if broken:
                    yield f"line {node.lineno}: {name} {reason}"


def unsafe_import(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    for name in names:
        if name.split(".")[0] in UNPICKLE:
            yield f"line {node.lineno}: {name} unpickles"
        parses = any(name.startswith(one) for one in XML)
        if parses and not name.startswith("xml.sax.saxutils"):
            yield f"line {node.lineno}: {name} follows entities"


def is_text(call: ast.Call) -> bool:
    """A command given as one string."""
    return bool(call.args) and isinstance(call.args[0], ast.Constant | ast.JoinedStr | ast.BinOp)


def no_pickles(call: ast.Call) -> bool:
    return says(call, "allow_pickle", False)


def loads_unsafely(call: ast.Call, name: str) -> bool:
    kind = name.split(".")[-2] if "." in name else ""
    if kind.startswith("Auto") and not says(call, "trust_remote_code", False):
        return True
    # peft has no such argument: `check_places` looks for its safetensors before.
    return (
        kind.endswith(WEIGHTS) and kind != "PeftModel" and not says(call, "use_safetensors", True)
    )


@pytest.mark.parametrize("layer", LAYERS)
def test_nothing_unsafe_is_called(layer: str) -> None:
    found = [f"{path} {what}" for path, tree in modules(layer) for what in unsafe(tree)]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "eval(text)",
        "exec(text)",
        "import pickle",
        "from joblib import load",
        "import xml.etree.ElementTree as ET",
        "from lxml import etree",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "subprocess.run(f'ls {name}')",
        "subprocess.Popen('ls ' + name)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.save(path, values)",
        "yaml.load(text)",
        "tar.extractall(place)",
        "shutil.unpack_archive(path)",
        "tempfile.mktemp()",
        "AutoModel.from_pretrained(place)",
        "AutoTokenizer.from_pretrained(place, trust_remote_code=True)",
        "FluxFillPipeline.from_pretrained(place, trust_remote_code=False)",
        "transformers.CLIPVisionModelWithProjection.from_pretrained(place)",
    ],
)
def test_it_would_find(code: str) -> None:
    assert list(unsafe(ast.parse(code)))


def test_it_knows_what_is_safe() -> None:
    code = """
from xml.sax.saxutils import quoteattr
torch.load(path, weights_only=True)
subprocess.run(["ls", name])
AutoModel.from_pretrained(place, use_safetensors=True, trust_remote_code=False)
model.eval()
"""
    assert list(unsafe(ast.parse(code))) == []


def test_every_layer_is_read() -> None:
    assert all(len(list((REPOSITORY / layer).rglob("*.py"))) > 20 for layer in LAYERS)
