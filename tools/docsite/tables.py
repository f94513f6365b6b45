"""Markdown tables, and a JSON schema as tables: a field, its type with its limits, its default."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

Schema = dict[str, Any]

#: Bounds of a schema as a reader says them; `{}` is the number.
_BOUNDS: Final = {
    "minimum": "at least {}", "exclusiveMinimum": "above {}", "maximum": "at most {}", "exclusiveMaximum": "below {}",
    "minLength": "at least {} characters", "maxLength": "at most {} characters", "minItems": "at least {} items",
    "maxItems": "at most {} items", "minProperties": "at least {} entries", "maxProperties": "at most {} entries",
}  # fmt: skip


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; cells may hold anything but new lines."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


class Schemas:
    """The schemas of one document, and those that a page still has to show."""

    def __init__(self, schemas: dict[str, Schema]) -> None:
        self._schemas = schemas
        self._waiting: list[str] = []
        self._shown: set[str] = set()

    def fields(self, schema: Schema) -> str:
        """Return the table of an object's fields."""
        required = set(schema.get("required", ()))
        rows = [
            (f"`{name}`", self.kind(field), _default(field, required=name in required), field.get("description", ""))
            for name, field in schema.get("properties", {}).items()
        ]
        told = any(row[3] for row in rows)
        head = ("field", "type", "default", "meaning")
        return table(head if told else head[:3], rows if told else [row[:3] for row in rows]) if rows else ""

    def rest(self, level: str) -> str:
        """Return the tables of all objects that were named and not yet shown, each under a heading."""
        parts: list[str] = []
        while self._waiting:
            name = self._waiting.pop(0)
            schema = self._schemas[name]
            parts.append(f"{level} {plain(name)}\n\n{first_line(schema.get('description', ''))}\n\n{self.fields(schema)}")
        return "\n".join(parts)

    def resolved(self, schema: Schema) -> Schema:
        """Return the object that a schema names, to be shown in its place."""
        if "$ref" not in schema:
            return schema
        name = schema["$ref"].rsplit("/", 1)[-1]
        self._shown.add(name)
        return self._schemas[name]

    def kind(self, schema: Schema) -> str:
        """Return a type in words, with its limits."""
        if "$ref" in schema:
            return self._named(schema["$ref"].rsplit("/", 1)[-1])
        for several in ("anyOf", "oneOf"):
            if several in schema:
                return " or ".join(dict.fromkeys(self.kind(each) for each in schema[several]))
        if "const" in schema:
            return _literal(schema["const"])
        if "enum" in schema:
            return ", ".join(_literal(each) for each in schema["enum"])
        return ", ".join([self._plain_kind(schema), *_bounds(schema)])

    def _plain_kind(self, schema: Schema) -> str:
        match schema.get("type"):
            case "array":
                return f"list of {self.kind(schema['items'])}" if schema.get("items") else "list"
            case "object":
                inner = schema.get("additionalProperties")
                return f"object of {self.kind(inner)}" if isinstance(inner, dict) and inner else "object"
            case None:
                return "any JSON"
            case kind:
                return "bytes" if schema.get("format") == "binary" else str(kind)

    def _named(self, name: str) -> str:
        if name not in self._shown:
            self._shown.add(name)
            self._waiting.append(name)
        return f"[{plain(name)}](#{plain(name).lower()})"


def plain(name: str) -> str:
    """Return a schema's name without the module that tells two of one name apart."""
    *module, last = name.split("__")
    return f"{last}Of{module[-1].removesuffix('_schema').title()}" if module else last


def first_line(text: str) -> str:
    """Return what a docstring says first."""
    return " ".join(text.strip().split("\n\n")[0].split())


def _literal(value: object) -> str:
    return f"`{value}`" if isinstance(value, str) else f"`{str(value).lower()}`"


def _bounds(schema: Schema) -> list[str]:
    told = [words.format(f"{schema[key]:g}" if schema[key] < 1 else f"{schema[key]:,.10g}") for key, words in _BOUNDS.items()
            if key in schema]  # fmt: skip
    return [*told, *([f"like `{schema['pattern']}`"] if "pattern" in schema else [])]


def _default(schema: Schema, *, required: bool) -> str:
    if required:
        return "**required**"
    value = schema.get("default")
    return "" if value is None else _literal(value)
