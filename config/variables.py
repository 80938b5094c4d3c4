"""Settings as environment variables: their names, what they allow, and what was given for them.

Works for any nested pydantic model; `persona_mcp.config.settings` has the one of the program.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dotenv.parser import parse_stream
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource

from persona_mcp.state.errors import InvalidSettings
from persona_mcp.state.validation import in_words, resolve, schema_of, shorten

ENV_FILE = ".env"
TEST_PREFIX = "PERSONA_TEST_"
SEPARATOR = "__"
MASK = "********"
ENVIRONMENT = "environment"
ARGUMENT = "argument"
DEFAULT = "default"
JSON_TYPES = ("array", "object")
NEAREST = 1

TYPE_WORDS = {
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "array": "JSON list",
    "object": "JSON object",
}
BOUNDS = {
    "exclusiveMinimum": "above {}",
    "minimum": "{} or more",
    "maximum": "up to {}",
    "exclusiveMaximum": "below {}",
}


Model = type[BaseModel]


@dataclass(frozen=True)
class Variable:
    """One setting, as the outside knows it.

    What is said of it in words is made when it is asked for: a start with nothing wrong needs no
    schema, and those of all sections took a tenth of the time of a short command.

    Attributes:
        name: The environment variable.
        path: Names of the sections and the field.
        section: The model that it stands in.
        initial: The default.
    """

    name: str
    path: tuple[str, ...]
    section: Model
    initial: Any

    @property
    def type(self) -> str:
        """Kind of value in a word or two."""
        return _kind(self._schema, secret=self.secret)

    @property
    def allowed(self) -> str:
        """Range, choices or pattern, in words."""
        own: str | None = self._stated.get("allowed")
        return own or allowed_words(self._schema, schema_of(self.section))

    @property
    def meaning(self) -> str:
        """What it does, and its unit."""
        return str(self._stated.get("description", ""))

    @property
    def default(self) -> str:
        """The default as it would be written; empty for none."""
        return self._stated.get("default_words") or written(self.initial)

    @property
    def example(self) -> str:
        """What to write where the default depends on the machine."""
        return self._stated.get("example") or written(self.initial)

    @property
    def secret(self) -> bool:
        """Whether its value is never shown."""
        return isinstance(self.initial, SecretStr)

    @property
    def empty(self) -> bool:
        """Whether an empty value is allowed."""
        return written(self.initial) == ""

    @property
    def _stated(self) -> Mapping[str, Any]:
        stated: Mapping[str, Any] = schema_of(self.section)["properties"][self.path[-1]]
        return stated

    @property
    def _schema(self) -> Mapping[str, Any]:
        return resolve(self._stated, schema_of(self.section))


@dataclass(frozen=True)
class Section:
    """A group of variables that stand in one model."""

    path: tuple[str, ...]
    meaning: str
    variables: tuple[Variable, ...]


@dataclass(frozen=True)
class Given:
    """What was written for a variable, and where: `environment` or `.env`; None without `=`."""

    value: str | None
    source: str


@dataclass(frozen=True)
class Fault:
    """A wrong setting.

    Attributes:
        name: Its variable.
        given: What was given, masked if it is secret; None where the name itself is wrong.
        allowed: What is allowed.
    """

    name: str
    given: str | None
    allowed: str

    def __str__(self) -> str:
        """Write it in one line."""
        if self.given is None:
            return f"{self.name}: {self.allowed}"
        return f"{self.name}: given was {self.given}, allowed is {self.allowed}"


def sections_of(settings: type[BaseSettings]) -> list[Section]:
    """List the variables of a settings class in their sections, in the order of the source."""
    return list(_sections(settings, settings.model_construct(), (), _prefix(settings)))


def variables_of(settings: type[BaseSettings]) -> list[Variable]:
    """List the variables of a settings class in the order of the source."""
    return [variable for section in sections_of(settings) for variable in section.variables]


def _prefix(settings: type[BaseSettings]) -> str:
    return settings.model_config.get("env_prefix", "")


def _sections(
    model: Model, defaults: BaseModel, path: tuple[str, ...], prefix: str
) -> Iterator[Section]:
    values = {name: getattr(defaults, name) for name in model.model_fields}
    plain = [name for name, value in values.items() if not isinstance(value, BaseModel)]
    yield Section(
        path,
        (model.__doc__ or "").strip().partition("\n")[0],
        tuple(_variable(model, (*path, name), values[name], prefix) for name in plain),
    )
    for name, value in values.items():
        if isinstance(value, BaseModel):
            yield from _sections(type(value), value, (*path, name), prefix)


def _variable(model: Model, path: tuple[str, ...], default: Any, prefix: str) -> Variable:
    return Variable(prefix + SEPARATOR.join(path).upper(), path, model, default)


def _kind(schema: Mapping[str, Any], *, secret: bool) -> str:
    if secret:
        return "secret"
    if "enum" in schema:
        return "choice"
    if schema.get("format") == "path":
        return "path"
    return TYPE_WORDS.get(schema.get("type", ""), "text")


def allowed_words(schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    """Say what a schema allows: `number above 0 and up to 60`, `one of auto, small, large`."""
    kind = schema.get("type", "")
    if kind in ("integer", "number") and "enum" not in schema:
        return TYPE_WORDS[kind] + _range_words(schema)
    if kind in JSON_TYPES:
        return "JSON " + in_words(schema, root)
    if schema.get("format") == "path":
        return "path"
    return in_words(schema, root)


def _range_words(schema: Mapping[str, Any]) -> str:
    exclusive = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
    replaced = {exclusive[key] for key in exclusive if key in schema}
    stated = {key: written(schema[key]) for key in BOUNDS if key in schema and key not in replaced}
    if stated.keys() == {"minimum", "maximum"}:
        return f" {stated['minimum']}..{stated['maximum']}"
    parts = [BOUNDS[key].format(value) for key, value in stated.items()]
    return " " + " and ".join(parts) if parts else ""


def written(value: Any) -> str:
    """Write a value as one would in a `.env` file; secrets are masked."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple, set, frozenset, dict)):
        return json.dumps(value, ensure_ascii=False, default=_plain)
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)


def given_for(settings: type[BaseSettings]) -> dict[str, Given]:
    """Collect what the environment and the `.env` file say; the environment goes first.

    Names are in upper case, since letter case does not matter in them. `PERSONA_TEST_` is left out.

    Raises:
        InvalidSettings: The `.env` file cannot be read, or a line in it is no assignment.
    """
    _check_file(Path(ENV_FILE))
    found: dict[str, Given] = {}
    sources = (
        (DotEnvSettingsSource(settings), ENV_FILE),
        (EnvSettingsSource(settings), ENVIRONMENT),
    )
    for source, origin in sources:
        for name, value in source.env_vars.items():
            upper = name.upper()
            if upper.startswith(_prefix(settings)) and not upper.startswith(TEST_PREFIX):
                found[upper] = Given(value, origin)
    return found


def _check_file(path: Path) -> None:
    if not path.is_file():
        return
    try:
        with path.open(encoding="utf-8") as file:
            wrong = [line.original.line for line in parse_stream(file) if line.error]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(
            f"the {ENV_FILE} file cannot be read: it must be UTF-8, and open to this user"
        ) from error
    if wrong:
        raise InvalidSettings(
            f"line {wrong[0]} of the {ENV_FILE} file cannot be read: write NAME=value, "
            "and close every quote"
        )


def faults_in(given: Mapping[str, Given], variables: Sequence[Variable]) -> list[Fault]:
    """Find unknown names and empty values."""
    known = {variable.name: variable for variable in variables}
    faults = []
    for name, one in given.items():
        if name not in known:
            faults.append(unknown_name(name, list(known)))
        elif not one.value and not (known[name].empty and one.value == ""):
            faults.append(Fault(name, "nothing", _in_full(known[name])))
    return faults


def not_json(given: Mapping[str, Given], variables: Sequence[Variable]) -> list[Fault]:
    """Find texts that are no JSON where JSON is asked for."""
    return [
        Fault(variable.name, shorten(one.value), _in_full(variable))
        for variable in variables
        if (one := given.get(variable.name)) and one.value
        if variable.type.startswith("JSON") and not _is_json(one.value)
    ]


def unknown_name(name: str, known: Sequence[str]) -> Fault:
    """Say that there is no such setting, and name the nearest; the value may be a secret."""
    near = difflib.get_close_matches(name, known, NEAREST, cutoff=0)
    return Fault(name, None, f"there is no such setting; did you mean {near[0]}?")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _in_full(variable: Variable) -> str:
    return f"{variable.allowed} ({variable.meaning})" if variable.meaning else variable.allowed


def faults_of(error: ValidationError, variables: Sequence[Variable], prefix: str) -> list[Fault]:
    """Put pydantic's account of wrong values into ours."""
    by_path = {variable.path: variable for variable in variables}
    return [_fault(dict(one), by_path, prefix) for one in error.errors(include_url=False)]


def _fault(
    error: Mapping[str, Any], by_path: Mapping[tuple[str, ...], Variable], prefix: str
) -> Fault:
    location = tuple(str(part) for part in error["loc"])
    found = [by_path[location[:n]] for n in range(len(location), 0, -1) if location[:n] in by_path]
    said = str(error["ctx"]["error"]) if error["type"] == "value_error" else error["msg"]
    if not found:
        name = prefix + SEPARATOR.join(location).upper()
        if error["type"] == "extra_forbidden":
            return unknown_name(name, [variable.name for variable in by_path.values()])
        these = f"{name}{SEPARATOR}..." if location else f"{prefix}..."
        return Fault(these, "these values together", said)
    variable, inner = found[0], location[len(found[0].path) :]
    given = MASK if variable.secret else shorten(error.get("input"))
    allowed = _in_full(variable)
    if inner:
        allowed = f"{allowed}; {'.'.join(inner)}: {said}"
    elif error["type"] == "value_error":
        allowed = said
    return Fault(variable.name, given, allowed)


def invalid_settings(faults: Sequence[Fault]) -> InvalidSettings:
    """Make one error of all faults, one line each.

    Of several on one variable the first counts, and a wrong value that only comes of a name with
    too many parts does not.
    """
    unknown = tuple(fault.name for fault in faults if fault.given is None)
    first = {fault.name: fault for fault in reversed(faults)}.values()
    distinct = [
        fault
        for fault in reversed(first)
        if not any(name.startswith(fault.name + SEPARATOR) for name in unknown)
    ]
    return InvalidSettings(
        "\n".join(["these settings are wrong:", *(f"  {fault}" for fault in distinct)]),
        errors=[{"field": f.name, "allowed": f.allowed, "given": f.given} for f in distinct],
    )


def dotenv_value(text: str) -> str:
    """Write a value for a `.env` file, in quotes where it needs them."""
    return text if re.fullmatch(r"[\w.,:/@%+~-]*", text) else f"'{text}'"
