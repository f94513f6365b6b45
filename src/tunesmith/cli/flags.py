"""The settings as flags of a command, and where each setting's value came from."""

import inspect
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Optional

import typer
from typer.core import TyperCommand

from tunesmith.cli.client import fail
from tunesmith.core.address import shown

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from tunesmith.core.settings import Settings

FILE: Final = "tunesmith.toml"
#: A secret on a command line is seen by everyone on the machine.
SECRET: Final = frozenset({"hf_token", "admin_key"})


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting with its value and source (`flag`, a variable, `tunesmith.toml`, `default`)."""

    name: str
    value: str
    source: str


class SettingsVerb(TyperCommand):
    """A command that finds the given settings in its context's `obj`: one flag for every setting that is no secret.

    The flags are made when they are asked for, since loading the settings takes longer than the rest of `--help`.
    """

    _flags: "list[Any] | None" = None

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the command's own parameters and the settings'."""
        if self._flags is None:
            self._flags = _flags()
        return [*self._flags, *super().get_params(ctx)]

    def invoke(self, ctx: Any) -> Any:
        """Hand the command its flags."""
        names = {flag.name for flag in self._flags or ()}
        ctx.obj = {name: ctx.params.pop(name) for name in names if ctx.params[name] is not None}
        ctx.params = {name: value for name, value in ctx.params.items() if name not in names}
        return super().invoke(ctx)


def _flags() -> list[Any]:
    """Return the settings as the parameters that typer makes of a function with such a signature."""
    from tunesmith.core.settings import Settings

    parameters: list[inspect.Parameter] = []
    for name, field in Settings.model_fields.items():
        if name not in SECRET:
            kind = Annotated[_flag_type(field), typer.Option(help=_help(field), show_default=False)]
            parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind))

    def run(**_: Any) -> None: ...

    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess] - what typer reads
    holder = typer.Typer(add_completion=False)
    holder.command()(run)
    return typer.main.get_command(holder).params


def load(flags: dict[str, Any]) -> "Settings":
    """Return the settings; a value that cannot be is one line on stderr and exit code 2."""
    from pydantic import ValidationError

    from tunesmith.core.settings import Settings

    try:
        return Settings(**flags)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            fail(f"{FILE}: there is no setting '{name}'. `tunesmith doctor` lists them all.", 2)
        where = setting_source(name, flags)
        value = "what it is" if name in SECRET else shown(repr(first.get("input")))
        fail(f"{name} cannot be {value} ({where}): {first['msg']}.", 2)
    except tomllib.TOMLDecodeError as error:
        fail(f"{FILE} is not TOML: {error}.", 2)


def explain(settings: "Settings", flags: dict[str, Any]) -> list[Setting]:
    """Return every setting with its source; secrets are not shown."""
    from tunesmith.core.settings import Settings

    told: list[Setting] = []
    for name in Settings.model_fields:
        value = getattr(settings, name)
        text = "(set, not shown)" if name in SECRET and value else shown(str(value))
        told.append(Setting(name=name, value=text, source=setting_source(name, flags)))
    return told


def setting_source(name: str, flags: dict[str, Any]) -> str:
    """Return which of flag, environment, file and default gave a setting its value."""
    from tunesmith.core.settings import Settings

    if name in flags:
        return "flag"
    alias = Settings.model_fields[name].validation_alias if name in Settings.model_fields else None
    variable = alias if isinstance(alias, str) else f"TUNESMITH_{name.upper()}"
    if any(known.upper() == variable.upper() for known in os.environ):
        return variable
    if Path(FILE).is_file() and name in tomllib.loads(Path(FILE).read_text()):
        return FILE
    return "default"


def _flag_type(field: "FieldInfo") -> Any:
    return Optional[field.annotation]  # noqa: UP045 - built at run time


def _help(field: "FieldInfo") -> str:
    default = "" if field.default is None else f" (default: {field.default})"
    return f"{field.description or ''}{default}"
