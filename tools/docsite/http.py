"""The HTTP API of the app's own OpenAPI: a page for each subject, every route with who may, its fields and their limits."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from docsite.tables import Schema, Schemas, first_line, table
from tunesmith.api.deps import admin, answers_only
from tunesmith.api.keys import LOOKS, OPEN, depends

HEAD: Final = """
Every path below is answered by a server on its own; those under `/v1` are OpenAI's, those under `/tunesmith` ours.
A machine reads the same at `GET /openapi.json` of a running server. Errors are told in
[Errors and their codes](../errors.md), and what differs from OpenAI in [Compatibility](../../docs/compatibility.md).
A field that is not listed is refused.
"""


class Undescribed(Exception):
    """Something that a reader would find without a word."""


def pages(app: FastAPI) -> dict[str, str]:
    """Return the pages by their names, `index` among them."""
    document = app.openapi()
    schemas = document.get("components", {}).get("schemas", {})
    who = Who(app)
    by_tag: dict[str, list[tuple[str, str, dict[str, Any]]]] = defaultdict(list)
    for path, verbs in document["paths"].items():
        for verb, told in verbs.items():
            by_tag[told["tags"][0]].append((verb.upper(), path, told))
    made = {slug(tag): f"# {tag}\n\n{_page(routes, schemas, who)}" for tag, routes in by_tag.items()}
    rows = [
        (f"[`{verb} {path}`]({slug(tag)}.md#{anchor(verb, path)})", first_line(told.get("description", "")))
        for tag, routes in by_tag.items()
        for verb, path, told in routes
    ]
    nav = "".join(f"{slug(tag)}\n" for tag in by_tag)
    made["index"] = f"# HTTP API\n{HEAD}\n{table(('route', 'what it does'), rows)}\n```{{toctree}}\n:hidden:\n\n{nav}```\n"
    return made


def _page(routes: list[tuple[str, str, dict[str, Any]]], schemas: dict[str, Schema], who: "Who") -> str:
    shown = Schemas(schemas)
    parts = [_route(verb, path, told, shown, who) for verb, path, told in routes]
    rest = shown.rest("###")
    return "\n".join([*parts, f"## Objects\n\n{rest}" if rest else ""])


def _route(verb: str, path: str, told: dict[str, Any], shown: Schemas, who: "Who") -> str:
    if not told.get("description"):
        raise Undescribed(f"{verb} {path} has no docstring")
    parts = [
        f"({anchor(verb, path)})=\n## {verb} {path}\n\n{' '.join(told['description'].split())}\n\n*{who(verb, path)}*\n"
    ]
    given = [each for each in told.get("parameters", ()) if each["name"] != "api-version"]
    if given:
        rows = [(f"`{each['name']}`", each["in"], shown.kind(each["schema"]), _default(each)) for each in given]
        parts.append(table(("parameter", "in", "type", "default"), rows))
    for media, content in told.get("requestBody", {}).get("content", {}).items():
        schema = shown.resolved(content["schema"])
        fields = shown.fields(schema)
        what = f"Body, `{media}`"
        parts.append(f"{what}:\n\n{fields}" if fields else f"{what}: {shown.kind(schema)}.\n")
    return "\n".join(parts)


def _default(parameter: dict[str, Any]) -> str:
    default = parameter["schema"].get("default")
    return "**required**" if parameter.get("required") else "" if default is None else f"`{default}`"


class Who:
    """Says which keys a route is for, by the dependencies that the routes themselves have."""

    def __init__(self, app: FastAPI) -> None:
        self._admins = set(_verbs(app, admin))
        self._answering = set(_verbs(app, answers_only))

    def __call__(self, verb: str, path: str) -> str:
        """Return a sentence."""
        if path in OPEN:
            return "Needs no key."
        if (verb, path) in self._admins:
            return "Admin keys alone."
        if verb in LOOKS or (verb, path) in self._answering:
            return "Every key: admin, member, reader."
        return "Keys of admins and members; a reader's is refused."


def _verbs(app: FastAPI, on: Callable[..., object]) -> Iterator[tuple[str, str]]:
    for route in iter_route_contexts(app.routes):
        dependant = getattr(route, "dependant", None)
        if dependant is not None and depends(dependant, on):
            yield from ((verb, str(route.path_format)) for verb in route.methods or ())


def slug(tag: str) -> str:
    """Return a subject's page."""
    return tag.lower().replace(" ", "-")


def anchor(verb: str, path: str) -> str:
    """Return a route's place on its page."""
    return f"{verb} {path}".lower().translate(str.maketrans({"/": "-", "{": None, "}": None, " ": None, "_": "-"}))
