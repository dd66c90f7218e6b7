"""A topology that is still to be written down, and its text: a shoal.yaml with comments, as a person would write it.

Rule: the text is YAML that `config` reads back as this draft, whatever characters a label or a name has, and it tells
what nobody knew and had to be assumed. Pure; made by `conversion`, written by `shoal import`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_MEANS_SOMETHING = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})
_WIDTH = 118


@dataclass(frozen=True, slots=True)
class DraftShard:
    """One shard; its places as the file writes them. The label is None where it is the name."""

    name: str
    label: str | None
    weight: int
    master: str
    replicas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DraftSentinels:
    """The sentinels: where, or how many of them; times in milliseconds. None is left to its default."""

    nodes: tuple[str, ...] | int
    quorum: int | None = None
    down_after: int | None = None
    failover_timeout: int | None = None
    parallel_syncs: int | None = None


@dataclass(frozen=True, slots=True)
class DraftProxy:
    """One proxy: its host, and its ports where they would not be the usual ones by themselves."""

    host: str
    admin: int | None = None
    stats: int | None = None


@dataclass(frozen=True, slots=True)
class DraftPool:
    """One pool; times in milliseconds, 0 is none."""

    name: str
    listen: str
    shards: tuple[str, ...]
    hash: str
    distribution: str
    hash_tag: str | None
    timeout: int
    database: int
    client_connections: int


@dataclass(frozen=True, slots=True)
class Draft:
    """A whole topology. One pool is written with the proxies, and the cluster has its name."""

    origin: str
    """The file that it comes from."""
    cluster: str
    shards: tuple[DraftShard, ...]
    sentinels: DraftSentinels
    pools: tuple[DraftPool, ...]
    proxies: tuple[DraftProxy, ...]
    watched: bool = True
    """Whether sentinels watch the masters already; else they are to be set up."""
    hosts: Mapping[str, str] = field(default_factory=dict)
    password_file: str | None = None
    insecure: bool = False
    assumed: tuple[str, ...] = ()
    """What no one said, a sentence each."""
    left_out: tuple[str, ...] = ()
    """What cannot be said in a shoal.yaml, a sentence each with the reason."""


def text(draft: Draft) -> str:
    """The shoal.yaml."""
    blocks = (
        _head(draft),
        _hosts(draft),
        _shards(draft),
        _sentinels(draft),
        _auth(draft),
        _pools(draft),
        _proxy(draft),
    )
    return "\n".join("".join(f"{line}\n" for line in block) for block in map(list, blocks) if block)


def _head(draft: Draft) -> Iterator[str]:
    yield f"# Written by `shoal import` from {printable(draft.origin)}. Look at what it means with `shoal check`."
    yield "# Every key is where it was: labels, weights, order, hash and distribution are those of that file."
    if draft.assumed:
        yield "#"
        yield "# It does not say everything. Assumed, so look at these:"
        for sentence in draft.assumed:
            yield from _comment(printable(sentence))
    yield ""
    yield f"cluster: {word(draft.cluster)}"


def _comment(sentence: str) -> Iterator[str]:
    """A point of a list, in as many lines as it takes."""
    line = "#   -"
    for part in sentence.split(" "):
        if len(line) + 1 + len(part) > _WIDTH and line.strip("# -"):
            yield line
            line = "#    "
        line += f" {part}"
    yield line


def _hosts(draft: Draft) -> Iterator[str]:
    if draft.hosts:
        yield "hosts:"
        yield from (f"  {word(name)}: {word(address)}" for name, address in draft.hosts.items())


def _shards(draft: Draft) -> Iterator[str]:
    yield "# The name of a shard is Sentinel's name of its master. The ring hashes the `label`, or the name if there is"
    yield "# none: change neither, wherever the servers go, or keys are looked for on another shard."
    yield "shards:"
    for shard in draft.shards:
        yield f"  {word(shard.name)}:"
        if shard.label is not None:
            yield f"    label: {word(shard.label)}"
        if shard.weight != 1:
            yield f"    weight: {shard.weight}"
        yield f"    master: {word(shard.master)}"
        yield f"    replicas: {_list(shard.replicas)}"


def _sentinels(draft: Draft) -> Iterator[str]:
    sentinels = draft.sentinels
    yield "sentinel:"
    nodes = sentinels.nodes
    yield f"  nodes: {nodes if isinstance(nodes, int) else _list(nodes)}"
    if sentinels.quorum is not None:
        yield f"  quorum: {sentinels.quorum}"
    if sentinels.down_after is not None:
        yield f"  down_after: {sentinels.down_after}ms"
    if sentinels.failover_timeout is not None:
        yield f"  failover_timeout: {sentinels.failover_timeout}ms"
    if sentinels.parallel_syncs is not None:
        yield f"  parallel_syncs: {sentinels.parallel_syncs}"


def _auth(draft: Draft) -> Iterator[str]:
    if draft.password_file is not None:
        yield "# One password for servers, sentinels and clients."
        yield "auth:"
        yield f"  password_file: {word(draft.password_file)}"
    if draft.insecure:
        yield "# No password, as before: everybody in that network may read and write. With one on all servers, write"
        yield "#   auth: {password_file: ./secret}"
        yield "insecure: true"


def _pools(draft: Draft) -> Iterator[str]:
    if len(draft.pools) > 1:
        yield "pools:"
        for pool in draft.pools:
            yield f"  {word(pool.name)}:"
            yield f"    listen: {word(pool.listen)}"
            yield f"    shards: {_list(pool.shards)}"
            yield from (f"    {line}" for line in _settings(pool))


def _proxy(draft: Draft) -> Iterator[str]:
    yield "proxy:"
    yield "  nodes:"
    for number, proxy in enumerate(draft.proxies, 1):
        ports = "" if proxy.admin is None else f", admin: {proxy.admin}"
        ports += "" if proxy.stats is None else f", stats: {proxy.stats}"
        yield f"    proxy{number}: {{host: {word(proxy.host)}{ports}}}"
    if len(draft.pools) == 1:
        (pool,) = draft.pools
        yield f"  listen: {word(pool.listen)}"
        yield from (f"  {line}" for line in _settings(pool))


def _settings(pool: DraftPool) -> Iterator[str]:
    yield f"hash: {pool.hash}"
    yield f"distribution: {pool.distribution}"
    if pool.hash_tag is not None:
        yield f"hash_tag: {json.dumps(pool.hash_tag, ensure_ascii=False)}"
    if pool.database:
        yield f"database: {pool.database}"
    if pool.timeout:
        yield f"timeout: {pool.timeout}ms"
    if pool.client_connections:
        yield f"client_connections: {pool.client_connections}"


def word(text: str) -> str:
    """A text as YAML reads it back: plain where that can mean nothing else, else in double quotes."""
    if _PLAIN.fullmatch(text) and text.lower() not in _MEANS_SOMETHING:
        return text
    return json.dumps(text, ensure_ascii=False)


def _list(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(word, texts))}]"


def printable(text: str) -> str:
    """One line that any terminal takes, and a comment too."""
    return text if text.isprintable() else repr(text)[1:-1]
