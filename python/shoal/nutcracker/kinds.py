"""What may stand as a value in a nutcracker.yml: numbers, booleans, choices, addresses.

Rule: a value is judged by the text the file has, as nutcracker does: a number is decimal digits, a boolean the word
`true` or `false`. Each refusal is nutcracker's own sentence where it has one, and a hint. No message of a kind quotes
its value, which may be a password. Called by `file` through the table in `keys`.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from shoal.nutcracker.model import Listen, Server
from shoal.topology.values import MAX_PORT, Endpoint, UnixSocket, is_address

MOST = 2**31 - 1
MAX_PATH_BYTES = 107
"""What Linux takes as the path of a socket."""

_MAX_MODE = 0o777
_MEMCACHED_PORT = 11211
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_DIGITS = re.compile(r"[0-9]+")

_LISTEN_FORM = '"hostname:port" format string'
_MODE_FORM = '"socket_path permission" format string'
_SERVER_FORM = '"hostname:port:weight [name]" format string'
_SERVER_FORMS = '"hostname:port:weight [name]" or "/path/unix_socket:weight [name]" format string'


class BadValueError(ValueError):
    """What is wrong with a value, as it goes on after `directive "x"`, and a hint."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: how it is written, in words, and what reads one. A list's items are read one by one."""

    written: str
    read: Callable[[str], Any]
    listed: bool = False

    @property
    def hint(self) -> str:
        """How it is written, for an error."""
        return self.written.replace("`", '"')


def digits(text: str) -> int | None:
    """A decimal number; None if it is none. Beyond `MOST` it is `MOST` + 1, however long it is."""
    if not _DIGITS.fullmatch(text):
        return None
    return int(text) if len(text.lstrip("0")) <= len(str(MOST)) else MOST + 1


def number(*, least: int = 0, most: int = MOST, zero: str = "", why: str = "") -> Callable[[str], int]:
    """Reads a number; `zero` says what is wrong with 0 where `least` is 1, `why` what with more than `most`."""
    why = why or "beyond it nutcracker's own count overflows"

    def read(text: str) -> int:
        value = digits(text)
        if value is None:
            raise BadValueError("is not a number", "decimal digits and nothing else: no sign, no unit")
        if value > most:
            raise BadValueError("is too large a number", f"at most {most}; {why}")
        if value < least:
            raise BadValueError(zero)
        return value

    return read


def boolean(text: str) -> bool:
    if text not in ("true", "false"):
        meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(text.lower(), text.lower())
        guess = meant if meant in ("true", "false") else None
        raise BadValueError('is not "true" or "false"', f"write {guess}, in small letters" if guess else None)
    return text == "true"


def choice(noun: str, known: Iterable[str]) -> Callable[[str], str]:
    """Reads one of some names, capitals and all."""
    names = tuple(known)

    def read(text: str) -> str:
        if text not in names:
            hint = f"write {text.lower()}, in small letters" if text.lower() in names else f"one of {', '.join(names)}"
            raise BadValueError(f"is not a valid {noun}", hint)
        return text

    return read


def hash_tag(text: str) -> str:
    if len(text.encode()) != 2:
        raise BadValueError(
            "is not a valid hash tag string with two characters", 'the opening and the closing one: "{}"'
        )
    return text


def password(text: str) -> str:
    return text


# ----------------------------------------------------------------------------------------------------------- addresses


def listen(text: str) -> Listen:
    """Read "host:port", split at the last colon, or "/path" with perhaps a mode after the last space."""
    if text.startswith("/"):
        path, space, mode = text.rpartition(" ")
        return UnixSocket(_path(path), _mode(mode)) if space else UnixSocket(_path(text))
    name, colon, port = text.rpartition(":")
    if not colon:
        raise BadValueError(f"has an invalid {_LISTEN_FORM}", 'for example "0.0.0.0:22121"')
    return Endpoint(_host(name), _port(port, _LISTEN_FORM))


def server(text: str) -> Server:
    """Read "host:port:weight [alias]" or "/path:weight [alias]" from the right; the caller knows the line.

    The label is the alias, or else what stands before the weight; a host alone if its port is memcached's own.
    """
    address, space, alias = text.rpartition(" ") if " " in text else (text, "", "")
    rest, _, weight = address.rpartition(":")
    is_path = text.startswith("/")
    name, colon, port = (rest, ":", "") if is_path else rest.rpartition(":")
    if not rest or not colon or (is_path and ":" in rest):
        raise BadValueError(f"has an invalid {_SERVER_FORMS}", 'for example "10.0.0.5:6379:1 shard1"')
    heft = _weight(weight)
    place = UnixSocket(_path(name)) if is_path else Endpoint(_host(name), _port(port, _SERVER_FORM))
    if space and not alias:
        raise BadValueError(
            "has a space after the weight and no name behind it", "leave the space out, or name the server"
        )
    label = alias or (name if place[1] == _MEMCACHED_PORT else f"{name}:{port}")
    if not label.isprintable():
        raise BadValueError("has a name with an unprintable character")
    return Server(place, heft, alias or None, label, 0)


def sentinel(text: str) -> Endpoint:
    """Read "host:port"; a weight after it, as the list of servers has, is ignored."""
    head, bracket, tail = text.rpartition("]") if text.startswith("[") else ("", "", text)
    name, colon, port = tail.partition(":")
    port, weighted, weight = port.partition(":")
    right = colon and (not weighted or digits(weight) is not None) and (not bracket or not name)
    if not right:
        hint = 'for example "10.0.0.5:26379"; an IPv6 address stands in brackets: "[::1]:26379"'
        raise BadValueError(f"has an invalid {_LISTEN_FORM}", hint)
    return Endpoint(_host(head + bracket or name), _port(port, _LISTEN_FORM))


def _host(text: str) -> str:
    """An address or a name; brackets around an IPv6 address are taken off."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not is_address(bare) and (bare != text or not _HOST.fullmatch(text)):
        hint = "every address is 0.0.0.0" if text == "*" else "an IP address, or a name of letters, digits, . and -"
        raise BadValueError("has an invalid host", hint)
    return bare


def _port(text: str, form: str) -> int:
    value = digits(text)
    if value is None or not 1 <= value <= MAX_PORT:
        raise BadValueError(f"has an invalid port in {form}", f"a number from 1 to {MAX_PORT}")
    return value


def _weight(text: str) -> int:
    value = digits(text)
    if value == 0:
        raise BadValueError(
            f"has a zero weight in {_SERVER_FORM}", "at least 1; leave the server out if it has no keys"
        )
    if value is None or value > MOST:
        raise BadValueError(f"has an invalid weight in {_SERVER_FORM}", 'digits, for example "10.0.0.5:6379:1"')
    return value


def _path(text: str) -> str:
    if not text.isprintable():
        raise BadValueError("has a path with an unprintable character")
    if len(text.encode()) > MAX_PATH_BYTES:
        raise BadValueError("has a path that is too long for a socket", f"at most {MAX_PATH_BYTES} bytes")
    return text


def _mode(text: str) -> int | None:
    """A mode in octal; none, and 0, leave it to the umask."""
    if not re.fullmatch("[0-7]{0,10}", text) or int(text or "0", 8) > _MAX_MODE:
        raise BadValueError(f"has an invalid file permission in {_MODE_FORM}", "an octal number of at most 0777")
    return int(text or "0", 8) or None
