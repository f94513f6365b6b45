"""What to tell about a request that its schema refused: the field by the path a client writes, the value, what would do."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from tunesmith.api.wire import shown
from tunesmith.core.errors import InvalidRequest

#: What pydantic's type errors mean in JSON's words.
_EXPECTED: Final[Mapping[str, str]] = {
    "string_type": "a string",
    "string_unicode": "a string of valid Unicode",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "int_parsing": "an integer",
    "float_type": "a number",
    "bool_type": "a boolean",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "mapping_type": "an object",
}
#: What pydantic's sentences are about, which here is the field.
_SUBJECTS: Final = ("Input", "String", "Value", "List", "Dictionary")
_SOURCES: Final = frozenset({"body", "query", "path", "header"})
_KINDS: Final[tuple[tuple[type, str], ...]] = (
    (type(None), "null"),
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a number"),
    (str, "a string"),
    (bytes, "other content"),
    (list, "an array"),
)


def explain(faults: Sequence[Mapping[str, Any]], body: object = None) -> InvalidRequest:
    """Return the error that tells the first fault, or all unknown fields together; `faults` are pydantic's."""
    first = faults[0]
    if first["type"] == "json_invalid":
        return InvalidRequest(f"The body is not valid JSON: {first['ctx']['error']} at character {first['loc'][-1]}.")
    name = _field(first, body)
    if not name:
        got = "none came" if first["type"] == "missing" else f"{_kind(first.get('input'))} came"
        return InvalidRequest(f"The body must be a JSON object, sent with content-type application/json; {got}.")
    match first["type"]:
        case "missing" | "union_tag_not_found":
            return InvalidRequest(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
        case "extra_forbidden":
            names = [_field(fault, body) for fault in faults if fault["type"] == "extra_forbidden"]
            listed = ", ".join(f"'{unknown}'" for unknown in names)
            message = f"Unknown parameter{'s' * (len(names) > 1)}: {listed}."
            return InvalidRequest(message, param=name, code="unknown_parameter")
        case kind if kind in _EXPECTED:
            return _wrong_type(first, faults, body)
        case _:
            return InvalidRequest(f"'{name}' {_told(first)}.", param=name, code="invalid_value")


def _wrong_type(first: Mapping[str, Any], faults: Sequence[Mapping[str, Any]], body: object) -> InvalidRequest:
    """Tell a value of another JSON type; where a field takes several, the one that came decides which of them is meant."""
    name = _field(first, body)
    inner = next((fault for fault in faults if _field(fault, body).startswith((f"{name}.", f"{name}["))), None)
    if inner is not None:
        return explain([inner], body)
    expected = dict.fromkeys(
        _EXPECTED[fault["type"]] for fault in faults if fault["type"] in _EXPECTED and _field(fault, body) == name
    )
    got = _kind(first.get("input")) if first["type"] != "int_parsing" else shown(first.get("input"))
    return InvalidRequest(f"'{name}' must be {' or '.join(expected)}, not {got}.", param=name, code="invalid_type")


def _told(fault: Mapping[str, Any]) -> str:
    """Return what is wrong with a value, as the rest of a sentence that its field began."""
    got, message = fault.get("input"), str(fault["msg"])
    if fault["type"] == "union_tag_invalid":
        return f"must be one of {fault['ctx']['expected_tags']} (got {shown(fault['ctx']['tag'])})"
    if fault["type"] != "value":
        for subject in _SUBJECTS:
            message = message.replace(f"{subject} should", "must")
        message = message.replace(" after validation", "")
        if isinstance(got, str):  # whose length is told in items where it was looked at by more than pydantic
            message = message.replace(" items", " characters").replace(" item", " character")
    return message if isinstance(got, dict | list) else f"{message} (got {shown(got)})"


def _field(fault: Mapping[str, Any], body: object) -> str:
    """Return the field's path as a client would write it, without what pydantic adds to tell a union's branches apart."""
    location: Sequence[str | int] = fault["loc"]
    in_body = not location or location[0] not in _SOURCES - {"body"}
    names_absent = fault["type"] in {"missing", "extra_forbidden"}
    steps = list(location[1:] if location and location[0] in _SOURCES else location)
    name, here = "", body
    for number, step in enumerate(steps):
        if isinstance(step, int):
            name = f"{name}[{step}]"
            here = here[step] if isinstance(here, list) and step < len(here) else None
        elif isinstance(here, dict) and step in here:
            name = _under(name, step)
            here = cast("dict[str, object]", here)[step]
        elif not in_body or (names_absent and number == len(steps) - 1):
            name = _under(name, step)
    if fault["type"].startswith("union_tag"):
        return _under(name, fault["ctx"]["discriminator"].strip("'"))
    return name


def _under(name: str, step: str) -> str:
    return f"{name}.{step}" if name else step


def _kind(value: object) -> str:
    """Return a JSON value's type with its article."""
    return next((word for kind, word in _KINDS if isinstance(value, kind)), "an object")
