"""The arms of a batch: each combination of its grid, made when it is asked for."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product
from typing import Annotated, Any, TypeVar, overload

from pydantic import BaseModel, TypeAdapter, ValidationError

from persona_mcp.state.batch.faults import known
from persona_mcp.state.dialogue_spec import ARMS_MAX, CastEntry, DialogueSpec, Tie
from persona_mcp.state.errors import Fault
from persona_mcp.state.validation import fault

SAME = ("name", "description", "repeats", "seed", "seeds", "variations", "outputs")
"""Fields of the batch itself: its arms have them in common, so that they can be compared."""
ONE_MODEL = ("name", "endpoints", "slots")
KEPT_ARMS = 64
FORMS: dict[str, TypeAdapter[Any]] = {
    "personas": TypeAdapter(CastEntry | None),
    "relationships": TypeAdapter(Tie),
}
"""What validates one entry of a field."""
Parts = tuple[str, ...]
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Arm:
    """One combination of a grid.

    Attributes:
        number: 0, 1, ...; the last path's values change first.
        values: By path.
        spec: The specification with them filled in, and without the grid.
    """

    number: int
    values: dict[str, Any]
    spec: DialogueSpec


class CannotVary(Exception):
    """A path or a value of a grid is not allowed."""

    def __init__(
        self, allowed: str, given: str | float | None, at_value: Parts | None = None
    ) -> None:
        """Say what is allowed; `at_value` is None for a path, else the place within the value."""
        super().__init__(allowed)
        self.allowed, self.given, self.at_value = allowed, given, at_value


class Arms(Sequence[Arm]):
    """All arms of a specification, one at least; none is kept for long."""

    def __init__(self, spec: DialogueSpec) -> None:
        """Take the grid of a specification whose values were checked."""
        self._spec = spec.model_copy(update={"variations": {}})
        self._grid = list(spec.variations.items())
        self._made = lru_cache(KEPT_ARMS)(self._make)
        self._wholes = dict[tuple[str, int], Any]()

    def __len__(self) -> int:
        """Count the combinations."""
        return math.prod(len(values) for _, values in self._grid)

    @overload
    def __getitem__(self, number: int) -> Arm: ...
    @overload
    def __getitem__(self, number: slice) -> "Sequence[Arm]": ...
    def __getitem__(self, number: int | slice) -> "Arm | Sequence[Arm]":
        """Make an arm."""
        if isinstance(number, slice):
            return [self._made(one) for one in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        return self._made(number % len(self))

    def __iter__(self) -> Iterator[Arm]:
        """Make one after the other."""
        return (self[number] for number in range(len(self)))

    def chosen(self, number: int) -> tuple[int, ...]:
        """Return which value an arm has of each path, counted from 0."""
        found = []
        for _, values in reversed(self._grid):
            number, which = divmod(number, len(values))
            found.append(which)
        return tuple(reversed(found))

    def number(self, chosen: Sequence[int]) -> int:
        """Return which arm has these values, as `chosen` counts them."""
        found = 0
        for (_, values), which in zip(self._grid, chosen, strict=True):
            found = found * len(values) + which
        return found

    def _make(self, number: int) -> Arm:
        spec, values = self._spec, dict[str, Any]()
        for (path, options), which in zip(self._grid, self.chosen(number), strict=True):
            values[path] = options[which]
            if "." in path:
                spec = filled(spec, tuple(path.split(".")), options[which])
            else:
                spec = spec.model_copy(update={path: self._whole(path, which, options[which])})
        return Arm(number, values, spec)

    def _whole(self, path: str, which: int, value: Any) -> Any:
        """Return a whole field, which is made once: it may be as large as the file."""
        if (path, which) not in self._wholes:
            self._wholes[path, which] = getattr(filled(self._spec, (path,), value), path)
        return self._wholes[path, which]


def only(spec: DialogueSpec, bears: Callable[[str], bool]) -> DialogueSpec:
    """Leave those paths of a grid that bear on something; the others have their first values."""
    left = {path: values for path, values in spec.variations.items() if bears(path)}
    made = spec
    for path, values in spec.variations.items():
        if path not in left:
            made = filled(made, tuple(path.split(".")), values[0])
    return made.model_copy(update={"variations": left})


def forms(spec: DialogueSpec, above: Parts) -> Iterator[tuple[Any, dict[str, int]]]:
    """Make each thing that a grid makes of what stands at a path.

    Args:
        spec: Whose paths and values were checked.
        above: The path, of an entry of the cast or of the relationships.

    Yields:
        It, and which value each path at or below it has.
    """
    start = ".".join(above)
    grid = {p: v for p, v in spec.variations.items() if f"{p}.".startswith(f"{start}.")}
    field, key = above
    entries: Any = getattr(spec, field)
    base = entries[int(key)] if isinstance(entries, list) else entries[key]
    for chosen in product(*(range(len(values)) for values in grid.values())):
        made = base
        for (path, values), which in zip(grid.items(), chosen, strict=True):
            inner = tuple(path.split("."))[len(above) :]
            value = put(made, inner, above, values[which])
            made = value if inner else FORMS[field].validate_python(value, strict=True)
        yield made, dict(zip(grid, chosen, strict=True))


def grid_faults(spec: DialogueSpec) -> Iterator[Fault]:
    """Find what is wrong with the paths and values of a grid, each by itself."""
    arms = math.prod(len(values) for values in spec.variations.values())
    if arms > ARMS_MAX:
        counts = " x ".join(str(len(values)) for values in spec.variations.values())
        allowed = f"a grid of at most {ARMS_MAX:,} combinations"
        yield {"field": "variations", "allowed": allowed, "given": f"{counts} = {arms:,}"}
        return
    for path, values in spec.variations.items():
        outer = [one for one in spec.variations if path.startswith(f"{one}.")]
        if outer:
            allowed = f"a path outside of {outer[0]}, which is varied as a whole"
            yield {"field": f"variations.{path}", "allowed": allowed, "given": path}
            continue
        for number, value in enumerate(values):
            try:
                filled(spec, tuple(path.split(".")), value)
            except CannotVary as wrong:
                where = f"variations.{path}"
                if wrong.at_value is not None:
                    where = ".".join((where, str(number), *wrong.at_value))
                yield {"field": where, "allowed": wrong.allowed, "given": wrong.given}
                if wrong.at_value is None:
                    break


def filled(spec: DialogueSpec, parts: Parts, value: Any) -> DialogueSpec:
    """Put a value at a path.

    Raises:
        CannotVary: There is no such path, it is one that arms have in common, or the value is not
            allowed there.
    """
    if parts[0] in SAME:
        raise CannotVary("a field that may differ between arms", ".".join(parts))
    if parts[0] == "model" and (len(parts) == 1 or parts[1] in ONE_MODEL):
        allowed = "model.temperature alone of the model: run the batch once for each model"
        raise CannotVary(allowed, ".".join(parts))
    return changed(spec, parts, (), value)


def changed(whole: M, parts: Parts, above: Parts, value: Any) -> M:
    """Return a model with a value put at a path inside it.

    Args:
        whole: Whose field the first part names.
        parts: From here on.
        above: Before it, for messages.
        value: As it came.

    Raises:
        CannotVary: As `filled`.
    """
    name, rest, here = parts[0], parts[1:], (*above, parts[0])
    if name not in type(whole).model_fields:
        raise CannotVary(known(name, type(whole).model_fields, "a path of a field"), ".".join(here))
    inner = put(getattr(whole, name), rest, here, value)
    try:
        made = inner
        if not is_inside_model(getattr(whole, name), rest):
            made = adapter_of(type(whole), name).validate_python(inner, strict=True)
        whole = whole.model_copy(update={name: made})
        if type(whole).__pydantic_decorators__.model_validators:
            given = {field: getattr(whole, field) for field in whole.model_fields_set}
            type(whole).model_validate(given, strict=True)
    except ValidationError as error:
        raise not_allowed(type(whole), name, rest, error) from None
    return whole


def is_inside_model(here: Any, parts: Parts) -> bool:
    """Tell whether a path leads into a model: that was checked, and all around it is as it was."""
    for part in parts:
        if isinstance(here, BaseModel):
            return True
        here = here[int(part)] if isinstance(here, list) else (here or {}).get(part)
    return False


def put(here: Any, parts: Parts, path: Parts, value: Any) -> Any:
    """Put a value into what stands at a path, which is not changed itself.

    Raises:
        CannotVary: As `filled`.
    """
    if not parts:
        return value
    if here is None and path[0] == "personas" and len(path) == len(("personas", "id")):
        here = CastEntry()
    if isinstance(here, BaseModel):
        return changed(here, parts, path, value)
    part, rest, given = parts[0], parts[1:], ".".join((*path, parts[0]))
    if isinstance(here, list):
        if not (part.isdecimal() and int(part) < len(here)):
            allowed = f"a number below {len(here)} of an entry of {'.'.join(path)}, counted from 0"
            raise CannotVary(allowed, given)
        inner = put(here[int(part)], rest, (*path, part), value)
        return [*here[: int(part)], inner, *here[int(part) + 1 :]]
    if isinstance(here, dict):
        if part not in here and (rest or path == ("personas",)):
            raise CannotVary(known(part, here, f"an entry of {'.'.join(path)}"), given)
        return {**here, part: put(here.get(part), rest, (*path, part), value)}
    if here is None and path[0] == "personas" and path[-1] == "persona":
        raise CannotVary(f"{'.'.join(path[:-1])}.changes.{part} of one not said here", given)
    raise CannotVary(f"{'.'.join(path)} as a whole: there is nothing inside", given)


@cache
def adapter_of(kind: type[BaseModel], name: str) -> TypeAdapter[Any]:
    """Return what validates one field of a model."""
    field: Any = kind.model_fields[name]
    if not field.metadata:
        return TypeAdapter(field.annotation)
    allowed: Any = Annotated[(field.annotation, *field.metadata)]
    return TypeAdapter(allowed)


def not_allowed(
    kind: type[BaseModel], name: str, rest: Parts, error: ValidationError
) -> CannotVary:
    """Say what is allowed in place of a value, and where inside of it the fault lies."""
    first = error.errors(include_url=False)[0]
    told = fault(kind, {**first, "loc": (name, *first["loc"])})
    inside = told["field"].split(".")[1 + len(rest) :]
    return CannotVary(told["allowed"], told["given"], tuple(inside))
