"""GET /docs: every route and every field of a request of the OpenAPI document, as a page that loads nothing from elsewhere.

FastAPI's own page is made of a script from a CDN: offline it is empty, and online it tells strangers of this server.
"""

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from server.api.page import HEADERS

router = APIRouter(include_in_schema=False)
Schema = Mapping[str, Any]
BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {}",
    "maxProperties": "at most {}",
}


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Every route and field, in words."""
    return HTMLResponse(page_of(request.app.openapi()), headers=HEADERS)


def page_of(document: Schema) -> str:
    title = escape(document["info"]["title"])
    routes = (part for path, methods in document["paths"].items() for part in sections(path, methods, document))
    body = "\n".join([*routes, *shapes(document)])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title}: the API</title><link rel="icon" href="data:,"><link rel="stylesheet" href="web/page.css"></head><body>'
        f'<header><h1>{title}: the API</h1><a href="openapi.json">openapi.json</a></header><footer>{body}</footer></body></html>'
    )


def sections(path: str, methods: Schema, document: Schema) -> Iterator[str]:
    """A heading, what it does, and a list of its fields."""
    for method, operation in methods.items():
        yield f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2><p>{escape(operation.get('description', ''))}</p>"
        body = body_of(operation, document)
        fields = [*operation.get("parameters", ()), *(() if body is None else fields_of(body))]
        if fields:
            yield listed(fields)


def shapes(document: Schema) -> Iterator[str]:
    """What fields of bodies refer to by name, the same way."""
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    bodies = [body for operation in operations if (body := body_of(operation, document)) is not None]
    for name in dict.fromkeys(name for body in bodies for name in named(body, document)):
        schema = document["components"]["schemas"][name]
        yield f"<h2><code>{escape(name)}</code></h2><p>{escape(schema.get('description', ''))}</p>{listed(fields_of(schema))}"


def named(part: Any, document: Schema) -> Iterator[str]:
    """The names of all shapes that a schema refers to, inside each other too."""
    if isinstance(part, list):
        for one in part:
            yield from named(one, document)
    elif isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"].rpartition("/")[2]
            yield from named(resolved(part, document), document)
        for name, one in part.items():
            if name != "discriminator":
                yield from named(one, document)


def body_of(operation: Schema, document: Schema) -> Schema | None:
    """The schema of a JSON body."""
    body = operation.get("requestBody")
    return None if body is None else resolved(body["content"]["application/json"]["schema"], document)


def fields_of(schema: Schema) -> Iterator[Schema]:
    """In the shape that parameters have."""
    for name, own in schema["properties"].items():
        yield {"name": name, "schema": own, "required": name in schema.get("required", ())}


def listed(fields: Iterable[Schema]) -> str:
    return f"<ul>{''.join(item(field) for field in fields)}</ul>"


def item(field: Schema) -> str:
    schema = field["schema"]
    told = [kind(schema), "required" if field.get("required") else ""]
    told += [f"default {schema['default']}" if schema.get("default") is not None else "", schema.get("description", "")]
    return f"<li><code>{escape(field['name'])}</code>: {escape('; '.join(part for part in told if part))}</li>"


def resolved(schema: Schema, document: Schema) -> Schema:
    """What a reference refers to."""
    name = schema.get("$ref", "").rpartition("/")[2]
    found: Schema = document["components"]["schemas"][name] if name else schema
    return found


def kind(schema: Schema) -> str:
    """A type in words, with its bounds. null is left out: it is the same as nothing."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    several = [one for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ())) if one.get("type") != "null"]
    if several:
        return " or ".join(dict.fromkeys(kind(one) for one in several))
    if "enum" in schema or "const" in schema:
        return " or ".join(repr(one) for one in schema.get("enum", [schema.get("const")]))
    name = f"list of {kind(schema['items'])}" if "items" in schema else str(schema.get("type", "anything"))
    bounds = ", ".join(text.format(number(schema[key])) for key, text in BOUNDS.items() if key in schema)
    return f"{name} ({bounds})" if bounds else name


def number(value: float) -> str:
    return f"{value:.15g}"
