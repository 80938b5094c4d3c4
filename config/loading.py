"""Reading the settings, with a line for each that is wrong, and listing them with their sources."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings.exceptions import SettingsError

from persona_mcp.config.settings import PREFIX, Settings
from persona_mcp.config.variables import (
    ARGUMENT,
    SEPARATOR,
    faults_in,
    faults_of,
    given_for,
    invalid_settings,
    not_json,
    unknown_name,
    variables_of,
    written,
)


@dataclass(frozen=True)
class Setting:
    """A setting as it is in effect; secrets are masked.

    Attributes:
        name: The environment variable.
        type: Kind of value.
        allowed: Range, choices or pattern, in words.
        meaning: What it does, and its unit.
        default: The default, as one would write it.
        value: The value in effect, as one would write it.
        source: default, .env, environment or argument.
    """

    name: str
    type: str
    allowed: str
    meaning: str
    default: str
    value: str
    source: str


def load_settings(**overrides: Any) -> Settings:
    """Read all settings: arguments over environment over `.env` over defaults.

    Args:
        overrides: Values by field; a section is a mapping, merged into what else is given for it.

    Raises:
        InvalidSettings: Values out of range or unknown names; the message has a line for each.
    """
    variables = variables_of(Settings)
    names = [variable.name for variable in variables]
    given = given_for(Settings)
    faults = faults_in(given, variables)
    for field in overrides.keys() - Settings.model_fields.keys():
        faults.append(unknown_name(PREFIX + field.upper(), names))
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        faults.extend(faults_of(error, variables, PREFIX))
        raise invalid_settings(faults) from None
    except SettingsError:
        raise invalid_settings(faults + not_json(given, variables)) from None
    if faults:
        raise invalid_settings(faults)
    sources = {name: one.source for name, one in given.items()}
    settings.note_sources(sources | dict.fromkeys(_named_in(overrides), ARGUMENT))
    return settings


def _named_in(overrides: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[str]:
    names = []
    for field, value in overrides.items():
        here = (*path, field)
        if isinstance(value, BaseModel):
            names += _named_in(dict(value), here)
        elif isinstance(value, Mapping):
            names += _named_in(value, here)
        names.append(PREFIX + SEPARATOR.join(here).upper())
    return names


def list_settings(settings: Settings) -> list[Setting]:
    """List every setting with its value in effect and where that is from."""
    listed = []
    for variable in variables_of(Settings):
        value = written(functools.reduce(getattr, variable.path, settings))
        about = {key: getattr(variable, key) for key in ("name", "type", "allowed", "meaning")}
        source = settings.source_of(variable.name)
        listed.append(Setting(**about, default=variable.default, value=value, source=source))
    return listed
