"""The small values a topology is written with: endpoints, places, durations, sizes and names.

Rule: each is parsed once, here, and every refusal is a `complaint`: a sentence and a hint that `config` can show
beside the line it came from. Called by the models; `Endpoint` is used everywhere.
"""

import ipaddress
import re
from typing import Annotated, Any, NamedTuple, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

MAX_PORT = 65535
NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$"

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)")
_DURATION_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_SIZE = re.compile(r"(\d+)\s*(b|kb?|mb?|gb?)?", re.IGNORECASE)
_SIZE_BYTES = {"b": 1, "k": 1000, "kb": 1 << 10, "m": 1000**2, "mb": 1 << 20, "g": 1000**3, "gb": 1 << 30}


def complaint(what: str, hint: str | None = None) -> PydanticCustomError:
    """A refusal with a hint, to be raised inside a validator."""
    return PydanticCustomError("shoal", "{what}", {"what": what, "hint": hint})


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


def split_port(text: str) -> tuple[str, int | None]:
    """Split "host:port", "[v6]:port" or "host" at the port; ValueError says what is wrong with it."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f'"{text}" has a "[" that is not closed before the port')
        port = rest[1:] if rest else None
    elif is_address(text):
        host, port = text, None
    else:
        host, colon, tail = text.rpartition(":")
        host, port = (host, tail) if colon else (tail, None)
    if not host:
        raise ValueError(f'"{text}" names no host before its port')
    if port is None:
        return host, None
    if not (port.isascii() and port.isdigit()) or not 0 < int(port[:6]) <= MAX_PORT:
        raise ValueError(f'"{port}" is not a port: a number from 1 to {MAX_PORT}')
    return host, int(port)


class Endpoint(NamedTuple):
    """Where a socket listens: a literal address and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "127.0.0.1:6379" or "[::1]:6379"; ValueError otherwise."""
        host, port = split_port(text)
        if port is None:
            raise ValueError(f'"{text}" has no port')
        return cls(host, port)


class Place(BaseModel):
    """Where a node runs, as the file says it: a host's name (or address) and perhaps a port. Written "node6:6379"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    port: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            raise complaint(
                f'expected "host:port", got {value!r}', 'write it as text, for example "node6:6379"'
            )
        try:
            host, port = split_port(value)
        except ValueError as error:
            raise complaint(str(error), 'write "host:port", for example "node6:6379"') from None
        return {"host": host, "port": port}

    @model_serializer
    def _to_text(self) -> str:
        if self.port is None:
            return self.host
        return str(Endpoint(self.host, self.port))


def _duration(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value == 0:
        return 0
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        hint = 'write a number and its unit, for example "1500ms" or "4s"'
        if isinstance(value, int) and not isinstance(value, bool):
            hint = f'say which unit: "{value}ms" or "{value}s"'
        raise complaint(f"{value!r} is not a duration", hint)
    return round(float(match[1]) * _DURATION_MS[match[2]])


def _size(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise complaint(f"{value!r} is not a size", 'write a number of bytes, or for example "64mb"')
    return int(match[1]) * _SIZE_BYTES[(match[2] or "b").lower()]


Duration = Annotated[int, BeforeValidator(_duration), PlainSerializer(lambda ms: f"{ms}ms", when_used="json")]
"""Milliseconds; written "1500ms", "4s", "2m"."""

Size = Annotated[int, BeforeValidator(_size)]
"""Bytes; written as redis.conf does: "64mb" (1024 x 1024), "64m" (1000 x 1000)."""

Port = Annotated[int, Field(strict=True, ge=1, le=MAX_PORT)]

Name = Annotated[str, StringConstraints(strict=True, pattern=NAME_PATTERN)]
"""Safe as a file name, a unit name, a Sentinel master name and a ring label."""
