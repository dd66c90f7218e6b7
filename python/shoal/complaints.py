"""The words for what pydantic finds wrong with a topology: what, and a hint, in the terms of the file.

Rule: a message never shows a value that may be a secret or is long, and an unknown key always gets the key that was
probably meant. Pure; called by `config`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shoal.topology.model import LATER, LATER_VALUES, MOST_NODES, Pool, Proxies, Topology
from shoal.topology.values import MAX_PORT, NAME_HINT, closest, shown

Path = tuple[str | int, ...]

NOT_YET = "is not supported yet in this release"
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "dict_type": "a map",
    "model_type": "a map of settings",
    "model_attributes_type": "a map of settings",
    "list_type": "a list",
    "tuple_type": "a list",
}
_HINTS = {
    "string_type": "put it in quotes",
    "dict_type": "write names, each with its settings after a colon",
    "tuple_type": "write it in [ ], or one item a line, each after a dash",
}
_COUNTED = {
    "replicas": f"a number from 0 to {MOST_NODES}, or a list of places",
    "nodes": f"a number from 1 to {MOST_NODES}, or every one with its place",
}
"""What may be counted as well as placed."""

_NO_SHARDS = "the shortest topology is `shards: {a: {replicas: 1}, b: {replicas: 1}}`"


def dotted(path: Path) -> str:
    """A key path as people write it: shards.a.replicas[0]."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


@dataclass(frozen=True, slots=True)
class Complaint:
    """One error. An `extra` key may be left out as if it had not been there, to look for further errors."""

    path: Path
    what: str
    hint: str | None
    extra: bool


def of(error: ValidationError) -> Iterator[Complaint]:
    """Every error that pydantic found."""
    for detail in error.errors(include_url=False):
        at = _At(detail, tuple(part for part in detail["loc"] if part != "[key]"))
        what, hint = _SAYINGS.get(detail["type"], _other)(at)
        path = ("auth", "password_file") if at.path == ("auth", "password") else at.path
        yield Complaint(path, what, hint, detail["type"] == "extra_forbidden")


@dataclass(frozen=True, slots=True)
class _At:
    """What pydantic says, and the key path it says it about."""

    detail: ErrorDetails
    path: Path

    @property
    def key(self) -> str:
        return str(self.path[-1])

    @property
    def value(self) -> Any:
        return self.detail["input"]

    @property
    def section(self) -> type[BaseModel]:
        """The model of the map that the key is in."""
        return section_at(self.path[:-1])


Saying = Callable[[_At], tuple[str, str | None]]


def _ours(at: _At) -> tuple[str, str | None]:
    context = at.detail["ctx"]
    return str(context["what"]), context["hint"]


def _unknown_key(at: _At) -> tuple[str, str | None]:
    sections: list[type[BaseModel]] = [Proxies, Pool] if at.section is Proxies else [at.section]
    if any(at.key in LATER.get(section, ()) for section in sections):
        return f'"{at.key}" {NOT_YET}', None
    if at.section is Proxies and at.key in Pool.model_fields:
        return f'"{at.key}" belongs to a pool', "with `pools:` given, the settings of each pool stand there"
    known = [name for section in sections for name, field in section.model_fields.items() if not field.exclude]
    guess = closest(at.key, known)
    hint = f'did you mean "{guess}"?' if guess else f"known here: {', '.join(known)}"
    return f"unknown key {shown(at.key)}", hint


def _missing(at: _At) -> tuple[str, str | None]:
    if at.path == ("shards",):
        return "there are no shards", _NO_SHARDS
    field = at.section.model_fields.get(at.key)
    return f'"{at.key}" is missing', field.description if field else None


def _choice(at: _At) -> tuple[str, str | None]:
    known = [str(choice) for choice in get_args(at.section.model_fields[at.key].annotation)]
    if isinstance(at.value, str) and (at.key, at.value) in LATER_VALUES:
        return f"{at.key}: {at.value} {NOT_YET}", f"leave it out, or write {known[0]}"
    guess = closest(at.value, known) if isinstance(at.value, str) else None
    hint = f'did you mean "{guess}"?' if guess else f"one of {', '.join(known)}"
    return f"there is no {at.key} {shown(at.value)}", hint


def _name(at: _At) -> tuple[str, str | None]:
    return f"{shown(at.value)} cannot be a name", NAME_HINT


def _too_small(at: _At) -> tuple[str, str | None]:
    return _out_of_range(at, f"too little: at least {_amount(at.detail['ctx']['ge'], at)}")


def _too_big(at: _At) -> tuple[str, str | None]:
    return _out_of_range(at, f"too much: at most {_amount(at.detail['ctx']['le'], at)}")


def _out_of_range(at: _At, why: str) -> tuple[str, str | None]:
    if at.key in ("port", "admin", "stats"):
        return f"{shown(at.value)} is not a port: a number from 1 to {MAX_PORT}", None
    return f"{_amount(at.value, at)} is {why}", None


def _amount(value: Any, at: _At) -> str:
    return f"{value}ms" if at.key in ("down_after", "failover_timeout", "max_lag") else shown(value)


def _none_given(at: _At) -> tuple[str, str | None]:
    hint = _NO_SHARDS if at.path == ("shards",) else "at least one is needed; leave the key out for the default"
    return f'"{at.key}" is empty', hint


def _wrong_type(at: _At) -> tuple[str, str | None]:
    kind = at.detail["type"]
    if not at.path:
        return f"expected a map of settings, got {shown(at.value)}", "`shoal init` writes a file to begin with"
    if at.key in _COUNTED and kind in ("tuple_type", "dict_type"):
        return f"expected {_COUNTED[at.key]}, got {shown(at.value)}", None
    hint = "write it without quotes" if kind == "int_type" and isinstance(at.value, str) else _HINTS.get(kind)
    return f"expected {_EXPECTED[kind]}, got {shown(at.value)}", hint


def _other(at: _At) -> tuple[str, str | None]:
    return at.detail["msg"], None


_SAYINGS: Mapping[str, Saying] = {
    "shoal": _ours,
    "extra_forbidden": _unknown_key,
    "missing": _missing,
    "literal_error": _choice,
    "string_pattern_mismatch": _name,
    "greater_than_equal": _too_small,
    "less_than_equal": _too_big,
    "too_short": _none_given,
    **dict.fromkeys(_EXPECTED, _wrong_type),
}


def section_at(path: Path) -> type[BaseModel]:
    """The model that describes the map at a key path; names and indices on the way are stepped over."""
    section: type[BaseModel] = Topology
    names_follow = False
    for part in path:
        if names_follow or part not in section.model_fields:
            names_follow = False
            continue
        annotation = section.model_fields[str(part)].annotation
        section = next(_models(annotation), section)
        names_follow = get_origin(annotation) in (dict, tuple)
    return section


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
