"""The API's description, for programs and, from the same document, for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from annotation.guides import render as markdown
from config import schema

KINDS = {"json": "application/vnd.oai.openapi+json", "yaml": "application/vnd.oai.openapi"}
Json = dict[str, Any]


@login_not_required
@require_GET
def description(request: HttpRequest) -> HttpResponse:
    """OpenAPI 3.1: as YAML or, by `?format=json` or the Accept header, as JSON."""
    import yaml

    kind = request.GET.get("format", "")
    if kind not in KINDS:
        kind = "json" if "json" in request.headers.get("Accept", "") else "yaml"
    found = schema.document() | {"servers": [{"url": request.build_absolute_uri("/")[:-1]}]}
    if kind == "json":
        text = json.dumps(found, ensure_ascii=False)
    else:
        text = yaml.safe_dump(found, allow_unicode=True, sort_keys=False)
    return HttpResponse(text, content_type=f"{KINDS[kind]}; charset=utf-8")


@require_GET
def docs(request: HttpRequest) -> HttpResponse:
    """What the description says, to be read."""
    found = schema.document()
    context = {
        "about": markdown(found["info"]["description"]),
        "groups": list(_groups(found)),
        "objects": list(_objects(found)),
    }
    return render(request, "api_docs.html", context)


def _groups(found: Json) -> Iterator[tuple[str, list[Json]]]:
    by_tag: dict[str, list[Json]] = {}
    for path, operations in found["paths"].items():
        for method, one in operations.items():
            by_tag.setdefault(one["tags"][0], []).append(_operation(path, method, one))
    yield from sorted(by_tag.items())


def _operation(path: str, method: str, one: Json) -> Json:
    bodies = one.get("requestBody", {}).get("content", {})
    answers = {code: said for code, said in one["responses"].items() if code.startswith("2")}
    return {
        "id": one["operationId"],
        "method": method.upper(),
        "path": path,
        "text": markdown(one.get("description", "")),
        "parameters": [
            {"name": p["name"], "in": p["in"], "kind": kind(p["schema"]), "says": _says(p)}
            for p in one.get("parameters", [])
        ],
        "bodies": [(media, kind(body["schema"])) for media, body in bodies.items()],
        "examples": [
            json.dumps(example["value"], indent=1, ensure_ascii=False)
            for body in bodies.values()
            for example in body.get("examples", {}).values()
        ],
        "answers": [
            (code, media, kind(content["schema"]))
            for code, said in answers.items()
            for media, content in said.get("content", {}).items()
        ],
        "problems": [code for code in one["responses"] if code not in answers],
    }


def _says(parameter: Json) -> str:
    default = parameter["schema"].get("default")
    said = parameter.get("description", "")
    return said if default is None else f"{said} ({default})".strip()


def _objects(found: Json) -> Iterator[Json]:
    for name, component in sorted(found["components"]["schemas"].items()):
        required = set(component.get("required", []))
        yield {
            "name": name,
            "text": component.get("description", ""),
            "fields": [
                {
                    "name": field,
                    "kind": kind(one),
                    "needed": field in required,
                    "says": one.get("description", ""),
                }
                for field, one in component.get("properties", {}).items()
            ],
        }


def kind(one: Json) -> Json:
    """{"word", "object"}: what a value is, in a few words, and the object that it is made of."""
    if "$ref" in one:
        return {"word": "", "object": one["$ref"].rpartition("/")[2]}
    for several in ("allOf", "oneOf", "anyOf"):
        if several in one:
            parts = [kind(part) for part in one[several]]
            named = next((part["object"] for part in parts if part["object"]), "")
            words = [part["word"] for part in parts if part["word"]]
            return {"word": " or ".join(words), "object": named}
    if one.get("type") == "array":
        inner = kind(one["items"])
        return {"word": f"list of {inner['word']}".strip(), "object": inner["object"]}
    if "enum" in one:
        return {"word": ", ".join(str(value) for value in one["enum"]), "object": ""}
    types = one.get("type", "anything")
    word = " or ".join(types) if isinstance(types, list) else types
    return {"word": f"{word} ({one['format']})" if "format" in one else word, "object": ""}
