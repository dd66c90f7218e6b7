"""The tables of keys and flags as people read them: a page of the reference, and the lines of `-h`.

Rule: nothing is said here about a key or a flag that its table does not say. docs/reference/nutcracker-yml.md is
`page()`, written by scripts/reference.py; a test holds the two in step. Called by that script and by `-h`.
"""

from collections.abc import Iterator

from shoal.nutcracker.flags import FLAGS, Flag
from shoal.nutcracker.keys import KEYS, REQUIRED, Key

_OPENING = """\
# nutcracker.yml and nutcracker's flags

<!-- Written by scripts/reference.py from python/shoal/nutcracker: change the tables there, and run it. -->

`shoal-nutcracker` and `shoal proxy -c nutcracker.yml` read the file that Twemproxy reads. Its top level names the
pools; each pool is a map of these keys. Values are judged as nutcracker 0.5.0 judges them, by the text in the file:
numbers are decimal digits only (at most 2147483647), booleans exactly `true` or `false`, names of hashes and
distributions in small letters. A key that is not here, a key given twice and an empty value are errors. All errors of
a file come at once, each with line, pool and key.

```yaml
main:
  listen: 0.0.0.0:22121
  redis: true
  servers:
   - 10.0.0.5:6379:1 shard1
   - 10.0.0.6:6379:1 shard2
```

## Keys of a pool
"""

_ON_THE_FILE = """\
## The ring

- A server's place on the ring is its name: the text after the space, or else `host:port` as it is written (`host`
  alone if the port is 11211), or `path:` for a unix socket. The weight is no part of it. Two servers of a pool may not
  have one name.
- Pools and servers are sorted by the length of their name, then by its bytes. That is their order in the stats, and
  the order in which `modula` counts.

## What differs in reading the file

- Lists in brackets, anchors, `---` and `%YAML` are read; nutcracker refuses them for their looks.
- Host names are resolved when they are used. nutcracker looks `listen` up while it reads and refuses what it cannot
  find. An IPv6 address may stand in brackets, where the name on the ring keeps them.
- Numbers that overflow, a mode that is no octal number, a server without a host, and a socket's path that is longer
  than 107 bytes are refused. nutcracker takes them, and does something else or fails later. The file must be UTF-8.
- `0.0.0.0:22121` and `127.0.0.1:22121` in two pools, or one socket with two modes, are refused: only one of them
  could be bound.
"""

_FLAGS = """\
## Flags

As getopt_long has them: long ones may be shortened as long as they stay clear, the last of two counts, and what is no
flag is ignored. The defaults are those of Debian's nutcracker; `-o ''` logs to stderr.
"""


def page() -> str:
    """The reference page, in Markdown."""
    keys = _table(("key", "value", "default", "what it does"), map(_key_cells, KEYS.values()))
    notes = "\n".join(f"- `{key.name}`: {key.note}" for key in KEYS.values() if key.note)
    flags = _table(("flag", "default", "what it does"), map(_flag_cells, FLAGS.values()))
    others = "\n".join(f"- `{flag.word}`: {flag.note}" for flag in FLAGS.values() if flag.note)
    differs = f"What differs from nutcracker 0.5.0:\n\n{notes}\n"
    return f"{_OPENING}\n{keys}\n{differs}\n{_ON_THE_FILE}\n{_FLAGS}\n{flags}\n{others}\n"


def key_rows() -> list[tuple[str, str]]:
    """For `-h`: each key, and a sentence with its default."""
    return [(key.name, f"{key.help} ({_default(key, '')})") for key in KEYS.values()]


def flag_rows() -> list[tuple[str, str]]:
    """For `-h`: each flag as it is written, and what it does."""
    return [(_written(flag), _flag_help(flag)) for flag in FLAGS.values()]


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _key_cells(key: Key) -> tuple[str, ...]:
    return f"`{key.name}`", key.kind.written, _default(key, "`").removeprefix("default: "), key.help


def _default(key: Key, quote: str) -> str:
    if key.default is REQUIRED:
        return "required"
    if key.default is None or key.default == ():
        return "none"
    text = str(key.default).lower() if isinstance(key.default, bool) else str(key.default)
    return f"default: {quote}{text}{quote}"


def _written(flag: Flag) -> str:
    short = f"-{flag.short}, " if flag.short else ""
    return f"{short}--{flag.long}" + (f"={flag.metavar}" if flag.metavar else "")


def _flag_help(flag: Flag) -> str:
    default = "" if flag.default in (False, None) else f" (default: {flag.default})"
    return f"{flag.help}{default}" + (f". {flag.note}" if flag.note else "")


def _flag_cells(flag: Flag) -> tuple[str, ...]:
    default = {False: "off", None: "none"}.get(flag.default, f"`{flag.default}`")
    return f"`{_written(flag)}`", default, flag.help
