"""What the app's own OpenAPI says of a request that is read by hand: a form, or a query with brackets in it."""

from typing import Any

from pydantic import BaseModel


def query_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return a route's `openapi_extra` for a query that this model is made of."""
    schema = model.model_json_schema()
    required = schema.get("required", [])
    return {
        "parameters": [
            {"name": name, "in": "query", "required": name in required, "schema": field}
            for name, field in schema["properties"].items()
        ]
    }


def form_of(file: str, model: type[BaseModel] | None = None) -> dict[str, Any]:
    """Return a route's `openapi_extra` for a form: a file of this name, and the fields of this model."""
    schema = {} if model is None else model.model_json_schema()
    inner = schema.get("$defs", {})
    fields = {name: inner[field["anyOf"][0]["$ref"].rsplit("/", 1)[-1]] if _names_one(field) else field
              for name, field in schema.get("properties", {}).items()}  # fmt: skip
    whole = {
        "type": "object",
        "properties": {file: {"type": "string", "format": "binary"}, **fields},
        "required": [file, *schema.get("required", [])],
    }
    return {"requestBody": {"content": {"multipart/form-data": {"schema": whole}}, "required": True}}


def _names_one(field: dict[str, Any]) -> bool:
    return "$ref" in next(iter(field.get("anyOf", [{}])))
