"""The OpenAPI 3.1 document: the table of addresses and its models, in the words of that standard.

Nothing is described here by hand but what all addresses have in common.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any, Final, Literal, cast, get_args

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from taprail_common.api.base import Empty, Problem
from taprail_common.ids import IDENTIFIER_PATTERN
from taprail_common.wire import SIGNATURE_HEADER, TERMINAL_HEADER, TIMESTAMP_HEADER
from taprail_gateway.api.table import ANYBODY, Plain, Route

PATH: Final = "/openapi.json"
DOCUMENT: Final = web.AppKey("openapi", bytes)

Json = dict[str, Any]
Row = Route[Any, Any] | Plain
_Mode = Literal["validation", "serialization"]
_Input = tuple[type[BaseModel], _Mode]

_REF: Final = "#/components/schemas/{model}"
_IN_PATH: Final = re.compile(r"\{(\w+)\}")

_OF_ALL: Final = {
    500: "A fault of ours; `requestId` finds it in the log.",
    503: "Not now: come again after `Retry-After` seconds.",
}
_OF_KNOWN: Final = {
    400: "Something in the request is wrong; `field` names it.",
    401: "Nobody knows who asks.",
    403: "The caller may not do this.",
    429: "Too many requests: come again after `Retry-After` seconds.",
}
_OF_BODIES: Final = {
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The body is not plain JSON.",
}
_SECURITY: Final = {
    "user": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "Names its user in the claim `id`, and as what it is good for in `scopes`.",
    },
    "terminal": {
        "type": "apiKey",
        "in": "header",
        "name": TERMINAL_HEADER,
        "description": (
            f"A terminal's id, with {SIGNATURE_HEADER}: its Ed25519 signature of the body, or of"
            f" method, path, id and {TIMESTAMP_HEADER}."
        ),
    },
}
_RETRY: Final = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}


async def document(request: web.Request) -> web.Response:
    """GET /openapi.json."""
    return web.Response(body=request.app[DOCUMENT], content_type="application/json")


def describe(rows: Sequence[Row]) -> bytes:
    """The document for these addresses, as JSON."""
    refs, schemas = _schemas(rows)
    paths: dict[str, Json] = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row, refs, schemas)
    told = {
        "openapi": "3.1.0",
        "info": {
            "title": "TapRail gateway",
            "version": version("taprail"),
            "description": "Amounts are integers in the token's smallest unit, times RFC 3339.",
        },
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": _SECURITY},
    }
    return json.dumps(told).encode()


def _schemas(rows: Iterable[Row]) -> tuple[dict[_Input, Json], Json]:
    """Where each model is to be found, and all of them by their names."""
    inputs: dict[_Input, None] = {(Problem, "serialization"): None}
    for row in rows:
        for model in (*_bodies(row), *([] if isinstance(row, Plain) else [row.query])):
            inputs[model, "validation"] = None
        for answer in _answers(row).values():
            inputs.update({(model, "serialization"): None for model in _models(answer)})
    refs, definitions = models_json_schema(list(inputs), by_alias=True, ref_template=_REF)
    return cast("dict[_Input, Json]", refs), definitions["$defs"]


def _operation(row: Row, refs: dict[_Input, Json], schemas: Json) -> Json:
    told: Json = {
        "summary": row.about,
        "operationId": _name(row),
        "security": _security(row),
        "parameters": [*_in_path(row.path), *_in_query(row, refs, schemas), *_in_headers(row)],
        "responses": {
            str(status): response for status, response in sorted(_responses(row, refs).items())
        },
    }
    bodies = [refs[model, "validation"] for model in _bodies(row)]
    if bodies:
        schema = bodies[0] if len(bodies) == 1 else {"anyOf": bodies}
        must = isinstance(row, Plain) or row.must_say
        told["requestBody"] = {
            "required": must,
            "content": {"application/json": {"schema": schema}},
        }
    if isinstance(row, Route) and row.scopes != ANYBODY:
        told["description"] = f"For the scopes {', '.join(sorted(row.scopes))}."
    return told


def _responses(row: Row, refs: dict[_Input, Json]) -> dict[int, Json]:
    problem = {"application/json": {"schema": refs[Problem, "serialization"]}}
    refused = dict(_OF_ALL)
    if not (isinstance(row, Plain) and row.is_open):
        refused |= _OF_KNOWN
    if _bodies(row):
        refused |= _OF_BODIES
    if isinstance(row, Route):
        refused |= row.refusals
    responses: dict[int, Json] = {
        status: {"description": words, "content": problem} for status, words in refused.items()
    }
    for status, answer in _answers(row).items():
        responses[status] = {"description": row.about, "content": _content(answer, refs)}
    if isinstance(row, Route) and row.csv:
        responses[200]["content"]["text/csv"] = {"schema": {"type": "string"}}
    for status in (429, 500, 503):
        if status in responses:
            responses[status]["headers"] = _RETRY
    return responses


def _content(answer: Any, refs: dict[_Input, Json]) -> Json:
    if answer is str:
        return {"text/plain": {"schema": {"type": "string"}}}
    models = [refs[model, "serialization"] for model in _models(answer)]
    if not models:
        return {"application/json": {"schema": {"type": "object"}}}
    schema = models[0] if len(models) == 1 else {"anyOf": models}
    return {"application/json": {"schema": schema}}


def _in_path(path: str) -> list[Json]:
    schema = {"type": "string", "pattern": IDENTIFIER_PATTERN}
    names = _IN_PATH.findall(path)
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]


def _in_query(row: Row, refs: dict[_Input, Json], schemas: Json) -> list[Json]:
    if isinstance(row, Plain):
        return []
    schema = schemas[refs[row.query, "validation"]["$ref"].rpartition("/")[2]]
    return [
        {"name": name, "in": "query", "required": False, "schema": _not_null(each)}
        for name, each in schema.get("properties", {}).items()
    ]


def _in_headers(row: Row) -> list[Json]:
    schema = {"type": "string", "pattern": IDENTIFIER_PATTERN}
    return [
        {"name": name, "in": "header", "required": False, "schema": schema} for name in row.headers
    ]


def _not_null(schema: Json) -> Json:
    """A parameter is there or not; there is no null in an address."""
    told = {key: value for key, value in schema.items() if key not in {"anyOf", "title"}}
    if told.get("default", "") is None:
        del told["default"]
    for option in schema.get("anyOf", ()):
        if option != {"type": "null"}:
            told |= option
    return told


def _security(row: Row) -> list[Json]:
    if isinstance(row, Plain) and row.is_open:
        return []
    has_users = not isinstance(row, Plain) or row.users
    who = [*(["user"] if has_users else []), *(["terminal"] if row.terminals else [])]
    return [{name: []} for name in who]


def _bodies(row: Row) -> tuple[type[BaseModel], ...]:
    if isinstance(row, Plain):
        return row.bodies
    return () if row.body is Empty else (row.body,)


def _answers(row: Row) -> dict[int, Any]:
    if isinstance(row, Plain):
        return dict(row.answers)
    return {getattr(each, "http_status", 200): each for each in (row.answer, *row.also)}


def _models(answer: Any) -> list[type[BaseModel]]:
    """The models of an answer, which may be one of several."""
    return [each for each in get_args(answer) or (answer,) if each not in (str, dict)]


def _name(row: Row) -> str:
    parts = [part.strip("{}") for part in re.split(r"[/.-]", row.path) if part]
    return "_".join([row.method.lower(), *parts])
