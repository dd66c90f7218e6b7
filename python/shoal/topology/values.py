"""The small values a topology is written with: endpoints, places, durations, sizes, names, directives, the password.

Rule: each is parsed once, here, and every refusal is a `complaint`: a sentence and a hint that `config` shows beside
the line it is about. Called by the models; `Endpoint` is used everywhere.
"""

import difflib
import ipaddress
import re
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    StringConstraints,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

MAX_PORT = 65535
MAX_PASSWORD_BYTES = 512
NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$"
NAME_HINT = "letters, digits, _ . and -, at most 63 of them, and neither . nor - first"

_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*(ms|s|m|h)")
_DURATION_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_SIZE = re.compile(r"(\d{1,15})\s*(b|kb?|mb?|gb?)?", re.IGNORECASE)
_SIZE_BYTES = {"b": 1, "k": 1000, "kb": 1 << 10, "m": 1000**2, "mb": 1 << 20, "g": 1000**3, "gb": 1 << 30}
_SHOWN = 60


def complaint(what: str, hint: str | None = None) -> PydanticCustomError:
    """A refusal with a hint, to be raised inside a validator."""
    return PydanticCustomError("shoal", "{what}", {"what": what, "hint": hint})


def shown(value: object) -> str:
    """A value as a message quotes it: in one line, never long, and a container only by its kind."""
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = f'"{repr(value)[1:-1]}"' if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 4] + "..." + text[-1]


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return found[0] if found else None


def is_integer(value: object) -> bool:
    """Whether this is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_address(text: str) -> bool:
    """Whether this is a literal IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    return is_address(address) and ipaddress.ip_address(address).is_loopback


def is_wildcard(address: str) -> bool:
    return is_address(address) and ipaddress.ip_address(address).is_unspecified


# ------------------------------------------------------------------------------------------------ endpoints and places


def split_port(text: str) -> tuple[str, int | None]:
    """Split "host:port", "[v6]:port" or "host" at the port; ValueError says what is wrong with it."""
    port: str | None
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f'{shown(text)} has a "[" without a "]" before the port')
        port = rest[1:] if rest else None
    elif is_address(text):
        host, port = text, None
    else:
        host, colon, tail = text.rpartition(":")
        host, port = (host, tail) if colon else (tail, None)
    if not host:
        raise ValueError(f"{shown(text)} names no host before its port")
    return host, None if port is None else _port(port)


def _port(text: str) -> int:
    number = int(text) if re.fullmatch(r"[0-9]{1,6}", text) else 0
    if not 1 <= number <= MAX_PORT:
        raise ValueError(f"{shown(text)} is not a port: a number from 1 to {MAX_PORT}")
    return number


def split_listen(text: str) -> tuple[str | None, int | None]:
    """Split a pool's `listen`: "0.0.0.0:22121", "22121", ":22121" or an address; ValueError if it is none of these."""
    alone = text.removeprefix(":")
    if alone.isdigit():
        return None, _port(alone)
    host, port = split_port(text)
    if not is_address(host):
        raise ValueError(f'{shown(host)} is not an address to listen on, as "0.0.0.0" or "10.0.0.5" is')
    return host, port


class Endpoint(NamedTuple):
    """Where a socket listens: a literal address (in a nutcracker.yml also a name) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "127.0.0.1:6379" or "[::1]:6379"; ValueError otherwise."""
        host, port = split_port(text)
        if port is None:
            raise ValueError(f"{shown(text)} has no port")
        return cls(host, port)


class UnixSocket(NamedTuple):
    """Where a socket listens in the file system; `mode` is what it gets there, None what the umask leaves."""

    path: str
    mode: int | None = None

    def __str__(self) -> str:
        return self.path


class Place(BaseModel):
    """Where a node runs: a host's name (or an address) and perhaps a port. Written "node6:6379"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    port: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        hint = 'write it as text: "host:port", for example "node6:6379"'
        if not isinstance(value, str):
            raise complaint(f"expected where it runs, got {shown(value)}", hint)
        try:
            host, port = split_port(value)
        except ValueError as error:
            raise complaint(str(error), hint) from None
        return {"host": host, "port": port}

    @model_serializer
    def _to_text(self) -> str:
        return self.host if self.port is None else str(Endpoint(self.host, self.port))

    def __str__(self) -> str:
        return self._to_text()


def _address(text: str) -> str:
    if not is_address(text):
        raise complaint(
            f"{shown(text)} is not an IP address",
            "a name is not enough: while it is slow to resolve, Sentinel stops failing over",
        )
    if is_wildcard(text):
        raise complaint(f'"{text}" is not an address that others can reach', "give the address of one interface")
    return text


def _listen(text: str) -> str:
    try:
        split_listen(text)
    except ValueError as error:
        raise complaint(str(error), 'write "address:port", for example "0.0.0.0:22121", or just a port') from None
    return text


def _listen_text(value: Any) -> Any:
    return str(value) if is_integer(value) else value


# --------------------------------------------------------------------------------------------------- numbers and texts


def _duration(value: Any) -> int:
    if is_integer(value) and value == 0:
        return 0
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        hint = 'write a number and its unit, for example "1500ms" or "4s"'
        if is_integer(value) and value > 0:
            hint = f'say in which unit: "{shown(value)}ms" or "{shown(value)}s"'
        raise complaint(f"{shown(value)} is not a duration", hint)
    return round(float(match[1]) * _DURATION_MS[match[2]])


def _size(value: Any) -> int:
    if is_integer(value) and value >= 0:
        return int(value)
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise complaint(f"{shown(value)} is not a size", 'write a number of bytes, or for example "64mb"')
    return int(match[1]) * _SIZE_BYTES[(match[2] or "b").lower()]


def _command_name(text: str) -> str:
    name = "|".join(re.split(r"[ |]+", text.strip().lower()))
    if not re.fullmatch(r"[a-z0-9_.-]+(\|[a-z-]+)?", name):
        raise complaint(f"{shown(text)} is not the name of a command", 'as "flushall", or "config set"')
    return name


def _tag(tag: str) -> str:
    if len(tag) != 2 or not tag.isascii():
        raise complaint(f"hash_tag {shown(tag)} is not two characters", 'write the opening and the closing one: "{}"')
    return tag


def _label(label: str) -> str:
    if not label or not label.isprintable():
        raise complaint(f"{shown(label)} cannot be a label", "write text that can be printed, at least one character")
    return label


def _password(secret: SecretStr) -> SecretStr:
    """Refuse what a server could not read back: Redis 7.0's Sentinel rewrites its file without quoting."""
    text = secret.get_secret_value()
    if not text:
        raise complaint("the password is empty", "a long random word: head -c 24 /dev/urandom | base64")
    if len(text.encode("utf-8", "replace")) > MAX_PASSWORD_BYTES:
        raise complaint(f"the password is longer than {MAX_PASSWORD_BYTES} bytes")
    if any(character.isspace() or not character.isprintable() or character in "\"'" for character in text):
        raise complaint(
            "the password has a space, a quote or an unprintable character, which a server could not read back",
            "use one line of letters, digits and other signs",
        )
    return secret


def _directive(value: Any) -> tuple[str, ...]:
    """The lines that one directive of redis.conf stands on: what follows its name, as text."""
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise complaint("an empty list of values", "leave the directive out")
    return tuple(_directive_line(one) for one in values)


def _directive_line(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if is_integer(value) or isinstance(value, float):
        return str(value)
    if not isinstance(value, str):
        raise complaint(
            f"expected what follows the directive in redis.conf, got {shown(value)}", 'write it as text: "900 1"'
        )
    if not value.isprintable():
        raise complaint(f"{shown(value)} has a line break or an unprintable character", "one line for each directive")
    if not _ARGUMENTS.fullmatch(value):
        raise complaint(f"{shown(value)} has a quote that does not stand around a whole argument")
    return value


_ARGUMENTS = re.compile(
    r"""\s*(?:(?: "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\'|\\(?!'))*' | [^\s"']+ )(?:\s+|$))*""",
    re.VERBOSE,
)
"""Whole arguments as redis.conf has them: bare, or in quotes that a space or the end follows."""

Duration = Annotated[int, BeforeValidator(_duration), PlainSerializer(lambda ms: f"{ms}ms", when_used="json")]
"""Milliseconds; written "1500ms", "4s", "2m"."""

Size = Annotated[int, BeforeValidator(_size)]
"""Bytes; written as redis.conf does: "64mb" is 64 x 1024 x 1024, "64m" is 64 million."""

Port = Annotated[int, Field(strict=True, ge=1, le=MAX_PORT)]
Address = Annotated[str, AfterValidator(_address)]
Listen = Annotated[str, BeforeValidator(_listen_text), AfterValidator(_listen)]
CommandName = Annotated[str, AfterValidator(_command_name)]
"""A command, or a subcommand as "config|set" or "config set"; written small, with the stroke."""

HashTag = Annotated[str, AfterValidator(_tag)]
Password = Annotated[SecretStr, AfterValidator(_password)]

Label = Annotated[str, AfterValidator(_label)]
"""What a ring hashes for a shard; nutcracker's may be an address, which is no name."""

Directive = Annotated[tuple[str, ...], BeforeValidator(_directive)]
"""The arguments of one redis.conf directive, once for each line it stands on."""

Name = Annotated[str, StringConstraints(strict=True, pattern=NAME_PATTERN)]
"""Safe as a file name, a unit's name, a Sentinel master name and a ring's label."""
