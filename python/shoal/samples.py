"""Real keys of real servers, a bounded number of them.

Owns the reading of keys. Rule: it only looks (DBSIZE, SCAN), a server gives as many as its part of all keys is, so
that the sample is not bent, and no key counts twice, also if a master and its replica are both asked. Called by
`shoal diff`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from shoal.errors import SampleError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from redis import Redis

    from shoal.topology import Endpoint

PATIENCE = 5.0
BATCH = 1000
"""Keys of one SCAN: some tenths of a millisecond of the server's time."""


@dataclass(frozen=True)
class Source:
    """Where keys are read: servers, the database in them, and their password."""

    endpoints: Sequence[Endpoint]
    database: int = 0
    password: str | None = None


@dataclass(frozen=True)
class Sample:
    """Keys that were found, and how many the servers hold together."""

    keys: list[bytes]
    held: int


def read(source: Source, most: int, tell: Callable[[Endpoint, int], None]) -> Sample:
    """At most `most` keys of all servers together; `tell` hears how many there are so far, and of whom.

    Raises `SampleError`.
    """
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(_client(source, endpoint)) for endpoint in source.endpoints]
        sizes = [int(_ask(endpoint, client.dbsize)) for endpoint, client in zip(source.endpoints, clients, strict=True)]
        found: dict[bytes, None] = {}
        for endpoint, client, part in zip(source.endpoints, clients, parts(sizes, most), strict=True):
            mine: dict[bytes, None] = {}
            for batch in _scan(endpoint, client) if part else ():
                mine |= dict.fromkeys(batch)
                tell(endpoint, len(found) + min(len(mine), part))
                if len(mine) >= part:
                    break
            found |= dict.fromkeys(list(mine)[:part])
    return Sample(list(found), sum(sizes))


def parts(sizes: Sequence[int], most: int) -> list[int]:
    """How many keys of each server to read, so that everybody has a due part of `most`, or of all if they are fewer."""
    total = sum(sizes)
    if total <= most:
        return list(sizes)
    ends = [most * size // total for size in accumulate(sizes)]
    return [end - start for start, end in pairwise([0, *ends])]


@contextlib.contextmanager
def _client(source: Source, endpoint: Endpoint) -> Iterator[Redis]:
    from redis import Redis  # here: it takes longer to import than all of `shoal diff` without it
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    with Redis(
        host=endpoint.host,
        port=endpoint.port,
        db=source.database,
        password=source.password,
        protocol=2,
        socket_connect_timeout=PATIENCE,
        socket_timeout=PATIENCE,
        retry=Retry(NoBackoff(), 0),
    ) as client:
        yield client


def _scan(endpoint: Endpoint, client: Redis) -> Iterator[list[bytes]]:
    cursor = 0
    while True:
        cursor, batch = _ask(endpoint, partial(client.scan, cursor, count=BATCH))
        yield batch
        if cursor == 0:
            return


def _ask(endpoint: Endpoint, question: Callable[[], Any]) -> Any:
    from redis import exceptions

    servers = "name the Redis servers themselves: a proxy of another kind cannot list the keys behind it"
    try:
        return question()
    except exceptions.AuthenticationError as error:
        hint = "give the password in SHOAL_SAMPLE_PASSWORD or with --password-file"
        raise SampleError(f"the server does not accept the password: {error}", where=str(endpoint), hint=hint) from None
    except exceptions.ResponseError as error:
        raise SampleError(f"no keys are listed there: {error}", where=str(endpoint), hint=servers) from None
    except (OSError, exceptions.RedisError) as error:
        hung_up = "closed by server" in str(error)  # what nutcracker does with commands that it does not know
        what = f"the server did not list its keys: {error}"
        raise SampleError(what, where=str(endpoint), hint=servers if hung_up else None) from None
