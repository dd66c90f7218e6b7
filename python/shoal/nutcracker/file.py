"""Reads a nutcracker.yml into its pools, or says all that is wrong with it, each with line, pool and key.

Rule: a text gives a NutcrackerFile or a ConfigError and nothing else, and all of its problems at once. What
nutcracker refuses for what it means is refused, in its own words; what it refuses for style (lists in brackets,
anchors) is read. A password is never shown. Called by whoever is given such a file.
"""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, Final

from shoal import document
from shoal.complaints import dotted
from shoal.document import Document, Flaw
from shoal.errors import ConfigError
from shoal.nutcracker.keys import KEYS, REQUIRED, Key
from shoal.nutcracker.kinds import BadValueError
from shoal.nutcracker.model import Listen, NutcrackerFile, Pool, Server, rank
from shoal.topology.values import Endpoint, UnixSocket, closest, is_wildcard, shown

NOUN: Final = "configuration"
_POOL_FORM = "a pool's name and a colon, and below it `listen`, `redis`, `servers`, each indented"


def load(path: Path) -> NutcrackerFile:
    """Read and check a file."""
    return parse(document.text_of(path, "give it with -c", NOUN), str(path))


def parse(text: str, name: str = "nutcracker.yml") -> NutcrackerFile:
    """Check a file's text; `name` is what errors call it."""
    return _Reading(document.read(text, name, NOUN, raw=True)).file()


class _Wrong:
    """Stands for a value that has been complained about."""


_WRONG: Final = _Wrong()


class _Reading:
    """One pass over a file, and what is wrong with it so far."""

    def __init__(self, read: Document) -> None:
        self.read = read
        self.errors: list[tuple[tuple[int, int], ConfigError]] = []

    def file(self) -> NutcrackerFile:
        for flaw in self.read.flaws:
            self._flaw(flaw)
        pools = self._pools(self.read.data)
        if self.errors:
            raise ConfigError.together([error for _, error in sorted(self.errors, key=lambda pair: pair[0])], NOUN)
        return NutcrackerFile(tuple(sorted(pools, key=lambda pool: rank(pool.name))))

    def note(
        self, path: document.Path, what: str, hint: str | None = None, place: tuple[int, int] | None = None
    ) -> None:
        line, column = place or self.read.place(path)
        where = f"{self.read.name}:{line}:{column} {_printed(dotted(path))}".rstrip()
        self.errors.append(((line, column), ConfigError(_printed(what), where=where, hint=hint)))

    def _flaw(self, flaw: Flaw) -> None:
        """Pass a flaw on, in nutcracker's words; below a key only lists go on, and what else is there is refused."""
        path = flaw.path[:1] + tuple(_key(part) if isinstance(part, str) else part for part in flaw.path[1:])
        if any(isinstance(part, str) for part in path[2:]):
            return
        what = flaw.what
        if flaw.first and len(path) == 1:
            what = f"there are pools with same name '{path[0]}' (first in line {flaw.first})"
        elif flaw.first:
            what = f"{_directive(str(path[-1]))} is a duplicate (first in line {flaw.first})"
        self.note(path, what, flaw.hint, flaw.place)

    # ------------------------------------------------------------------------------------------------------------ pools

    def _pools(self, data: Any) -> list[Pool]:
        if not data:
            self.note((), "there are no pools", _POOL_FORM)
            return []
        if not isinstance(data, dict):
            self.note((), f"expected pools, got {_kind_of(data)}", _POOL_FORM)
            return []
        listens: dict[str, Listen] = {}
        pools = [self._pool(name, settings, listens) for name, settings in data.items()]
        for (one, first), (other, second) in combinations(listens.items(), 2):
            if _clash(first, second):
                same = f"have the same listen address '{second}'"
                what = same if str(first) == str(second) else f"cannot both listen: {first} takes {second} too"
                what = f"pools '{one}' and '{other}' {what}"
                line = self.read.place((one, "listen"))[0]
                self.note((other, "listen"), f"{what} (see line {line})", "each pool needs its own")
        return [pool for pool in pools if pool]

    def _pool(self, name: str, settings: Any, listens: dict[str, Listen]) -> Pool | None:
        if not name or not name.isprintable():
            what = f"{shown(name)} cannot be a pool's name"
            self.note((), what, "text that can be printed", self.read.place((name,)))
            return None
        if not isinstance(settings, dict):
            what = f"pool '{name}' has no settings" + (f", but {_kind_of(settings)}" if settings else "")
            self.note((name,), what, "indent it, below its pool's name" if name in KEYS else _POOL_FORM)
            return None
        values = {key.attribute: self._value(name, key, settings) for key in KEYS.values()}
        for word in settings:
            if word not in KEYS:
                self._unknown(name, word)
        if values["redis"] is False:
            hint = "Shoal serves Redis pools only; a pool of memcached stays with nutcracker"
            self.note((name, "redis"), f"pool '{name}' is not for Redis: it has no `redis: true`", hint)
        if isinstance(values["listen"], Endpoint | UnixSocket):
            listens[name] = values["listen"]
        if self.errors:
            return None
        del values["redis"]
        return Pool(name=name, line=self.read.place((name,))[0], **values)

    def _unknown(self, pool: str, word: str) -> None:
        key = _key(word)
        guess = closest(key.lower(), KEYS)
        hint = f'did you mean "{guess}"?' if guess else f"known here: {', '.join(KEYS)}"
        if key in KEYS:
            hint = "put a space after the colon"
        self.note((pool, key), f"{_directive(key)} is unknown", hint, self.read.place((pool, word)))

    # ----------------------------------------------------------------------------------------------------------- values

    def _value(self, pool: str, key: Key, settings: dict[str, Any]) -> Any:
        if key.name not in settings:
            if key.default is REQUIRED:
                what = f"pool '{pool}' has no servers" if key.kind.listed else f'directive "{key.name}:" is missing'
                self.note((pool, key.name), what, key.kind.hint)
                return _WRONG
            return key.default
        value = settings[key.name]
        return self._list(pool, key, value) if key.kind.listed else self._scalar((pool, key.name), key, value)

    def _scalar(self, path: document.Path, key: Key, value: Any) -> Any:
        directive = _directive(key.name)
        if not isinstance(value, str):
            hint = "put it in quotes" if key.name == "hash_tag" else key.kind.hint
            self.note(path, f"{directive} has an invalid value: {_kind_of(value)}", hint)
        elif not value:
            empty = "has an empty item" if key.kind.listed else "is empty"
            self.note(path, f"{directive} {empty}", key.kind.hint)
        elif not _is_text(value):
            self.note(path, f"{directive} has a character that is none")
        else:
            try:
                return key.kind.read(value)
            except BadValueError as error:
                self.note(path, f"{directive} {error.what}", error.hint)
        return _WRONG

    def _list(self, pool: str, key: Key, value: Any) -> Any:
        """The items of a list; servers in nutcracker's order."""
        path = (pool, key.name)
        if not isinstance(value, list) or not value:
            got = "an empty list" if value == [] else _kind_of(value)
            self.note(path, f"{_directive(key.name)} is not a list, but {got}", key.kind.hint)
            return _WRONG
        items, lines = [], []
        for index, text in enumerate(value):
            item = self._scalar((*path, index), key, text)
            lines.append(self.read.place((*path, index))[0])
            items.append(replace(item, line=lines[-1]) if isinstance(item, Server) else item)
        self._twice(path, items, lines)
        if _WRONG in items:
            return _WRONG
        return tuple(sorted(items, key=lambda item: rank(item.label)) if isinstance(items[0], Server) else items)

    def _twice(self, path: tuple[str, str], items: list[Any], lines: list[int]) -> None:
        """No server's label, and no sentinel, stands in a list twice: a ring has one place for a name."""
        first: dict[str, int] = {}
        hint = "a name after the weight tells two apart" if path[1] == "servers" else None
        for index, item in enumerate(items):
            if item is _WRONG:
                continue
            name = item.label if isinstance(item, Server) else str(item)
            if name in first:
                what = f"pool '{path[0]}' has {path[1]} with same name '{name}' (first in line {first[name]})"
                self.note((*path, index), what, hint)
            first.setdefault(name, lines[index])


def _directive(name: str) -> str:
    return f"directive {shown(name)}"


def _key(word: str) -> str:
    """A key as an error shows it: of `redis_auth:secret`, written without a space, only what is no secret."""
    return word.partition(":")[0]


def _printed(text: str) -> str:
    """One line that any terminal takes."""
    return text if text.isprintable() else repr(text)[1:-1]


def _kind_of(value: Any) -> str:
    """What stands somewhere, never in its own words: it may be a password."""
    if isinstance(value, dict | list):
        return shown(value)
    return "text" if value else "nothing"


def _is_text(value: str) -> bool:
    """Whether it could be written to a file again: half a surrogate pair, which YAML can escape, could not."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _clash(one: Listen, other: Listen) -> bool:
    """Whether only one of two sockets could be bound. Names are not resolved, so they clash only with themselves."""
    if isinstance(one, UnixSocket) or isinstance(other, UnixSocket):
        return isinstance(one, UnixSocket) and isinstance(other, UnixSocket) and one.path == other.path
    if one.port != other.port:
        return False
    wild = [place for place in (one, other) if is_wildcard(place.host)]
    same_family = (":" in one.host) == (":" in other.host)
    return one.host == other.host or any(":" in place.host or same_family for place in wild)
