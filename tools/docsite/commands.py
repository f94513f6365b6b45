"""The command line as typer has it: every verb with its arguments and options; and whether a line of it would be taken."""

from collections.abc import Iterator
from enum import Enum
from typing import Any, Final

import typer

from docsite.http import Undescribed
from docsite.tables import table
from tunesmith.cli.main import app
from tunesmith.core.settings import Settings

#: Verbs whose options are the server's settings, and are told there.
BY_SETTINGS: Final = frozenset({"serve", "doctor"})


def page() -> str:
    """Return the page of all verbs."""
    parts = [
        "# Commands\n\nWhat `tunesmith VERB --help` says, for every verb. "
        "Each talks to the server over HTTP, but for those that make, check or convert files and folders on their own.\n"
    ]
    for name, command in verbs(typer.main.get_command(app), "tunesmith"):
        parts.append(_verb(name, command))
    return "\n".join(parts)


def verbs(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield every verb that does something, by its full name."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    if getattr(command, "invoke_without_command", False):
        yield name, command
    for each, below in sorted(inner.items()):
        if not getattr(below, "hidden", False):
            yield from verbs(below, f"{name} {each}")


def refusal(words: list[str]) -> str | None:
    """Return why the command line would not take words after `tunesmith`, or None where it would; nothing is executed."""
    command: Any = typer.main.get_command(app)
    name = "tunesmith"
    try:
        while getattr(command, "commands", None) and words and not words[0].startswith("-"):
            first, *words = words
            if first not in command.commands:
                return f"`{name}` has no verb `{first}`"
            command, name = command.commands[first], f"{name} {first}"
        if getattr(command, "commands", None):
            # options of the command itself act as soon as they are read (`--install-completion` writes a file)
            known = {opt for each in command.params for opt in each.opts} | {"-h", "--help"}
            return next((f"`{name}` has no option `{word}`" for word in words if word not in known | {"bash", "zsh"}), None)
        if not {"-h", "--help"} & set(words):
            command.make_context(name, list(words))
    except Exception as error:  # noqa: BLE001 - the parser's own errors are private classes; whichever it is, it is shown
        return f"`{name}`: {error}"
    return None


def _verb(name: str, command: Any) -> str:
    if not command.help:
        raise Undescribed(f"{name} has no docstring")
    given = [each for each in command.params if each.name != "help" and not getattr(each, "hidden", False)]
    usage = "".join(_usage(each) for each in given if each.param_type_name == "argument")
    parts = [f"## {name}\n\n{' '.join(command.help.split())}\n\n```text\n{name}{usage} [OPTIONS]\n```\n"]
    own = [each for each in given if name.split()[-1] not in BY_SETTINGS or each.name not in Settings.model_fields]
    if len(own) < len(given):
        parts.append("Its options are the [settings](../docs/settings.md).\n")
    for each in own:
        if not each.help:
            raise Undescribed(f"{name}: {each.opts[0]} has no help")
    if own:
        parts.append(table(("", "type", "default", "meaning"), [_row(each) for each in own]))
    return "\n".join(parts)


def _row(each: Any) -> tuple[str, str, str, str]:
    label = f"`{each.name.upper()}`" if each.param_type_name == "argument" else ", ".join(
        f"`{opt}`" for opt in (*each.opts, *each.secondary_opts)
    )  # fmt: skip
    default = "**required**" if each.required else _default(each.default)
    return label, _kind(each), default, each.help


def _kind(each: Any) -> str:
    annotation = each.type_descriptor.annotation
    if getattr(each, "is_flag", False):
        return "flag"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{one.value}`" for one in annotation)
    name = getattr(annotation, "__name__", str(annotation))
    return {"str": "text", "int": "number", "float": "number", "Path": "path", "list": "text, may be repeated"}.get(
        name, name
    )


def _default(value: object) -> str:
    if value is None or value is False or value == [] or callable(value):
        return ""
    return f"`{value.value if isinstance(value, Enum) else value}`"


def _usage(each: Any) -> str:
    label = each.name.upper() + ("…" if each.nargs != 1 else "")
    return f" {label}" if each.required else f" [{label}]"
