"""A YAML file as plain values that still know their lines.

Owns the parsing of YAML and the way from a key path to a line. Rule: any text gives a Document or one ConfigError;
what YAML allows but a configuration cannot mean (a key twice, a tag, a list as a key) is a flaw with its place, and
reading goes on. Keys are always text, as they are written; values are too if the reader asks for them `raw`.
Called by `config` and `nutcracker`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scanner import Scanner

from shoal.errors import ConfigError

Path = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = frozenset(f"{_TAG}{kind}" for kind in ("str", "timestamp", "merge", "value"))
_SCALAR_TAGS = _TEXT_TAGS | {f"{_TAG}{kind}" for kind in ("null", "bool", "int", "float")}
_CONTAINER_TAGS = frozenset({f"{_TAG}map", f"{_TAG}seq"})
_ALIAS, _TAG_HANDLE = "found undefined alias", "found undefined tag handle"
"""Errors of YAML that quote a value, which may be a password that nobody put in quotes."""

_NO_TAGS = ("a YAML tag, which means nothing here", "write the value without it")
_MOST_BYTES = 4 << 20
_MOST_NODES = 100_000
"""More values than this are no configuration, but anchors that multiply."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something in the file that cannot be meant; for a key given twice, `first` is the line it stood in before."""

    place: tuple[int, int]
    path: Path
    what: str
    hint: str | None = None
    first: int | None = None


@dataclass
class Document:
    """The values of a file, the flaws found on the way, and where each key stands; `noun` is what the file is."""

    name: str
    noun: str = "topology"
    root: Node | None = None
    data: Any = None
    flaws: list[Flaw] = field(default_factory=list)

    def place(self, path: Path) -> tuple[int, int]:
        """Line and column where a key path stands, or the part of it that the file has."""
        node, mark = self.root, self.root
        for part in path:
            step = _step(node, part)
            if step is None:
                break
            mark, node = step
        return (1, 1) if mark is None else _place(mark)


def text_of(file: File, hint: str, noun: str = "topology") -> str:
    """A file's text; ConfigError if there is none that could be a configuration."""
    try:
        with file.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"there is no {noun} file", where=str(file), hint=hint) from None
    except OSError as error:
        raise ConfigError(f"the {noun} cannot be read: {error.strerror}", where=str(file)) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"the {noun} is not UTF-8 text", where=f"{file}:{line}") from None
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"the {noun} is larger than 4 MB", where=str(file))
    return text


def read(text: str, name: str, noun: str = "topology", *, raw: bool = False) -> Document:
    """Parse a file's text; ConfigError if it is not YAML. `raw` leaves every scalar the text that the file has."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner = _Scanner
    yaml.composer.warn_double_anchors = False  # YAML allows them
    try:
        root = yaml.compose(text)
        document = Document(name, noun, root)
        document.data = None if root is None else _Builder(document, raw=raw).build(root, ())
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark is not None else name
        raise ConfigError(f"not YAML: {_syntax_error(error)}", where=where, hint=_syntax_hint(error)) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError("not YAML: a character that a text file cannot have", where=f"{name}:{line}") from None
    except YAMLError as error:
        raise ConfigError(f"not YAML: {str(error).splitlines()[0]}", where=name) from None
    except RecursionError:
        raise ConfigError(f"not a {noun}: nested too deeply", where=name) from None
    return document


class _Scanner(Scanner):
    """Takes a tab between a key and its value and at the end of a line, as YAML and libyaml do and ruamel does not."""

    def scan_to_next_token(self) -> None:
        super().scan_to_next_token()
        while self.reader.peek() == "\t" and (not self.allow_simple_key or self._rest_of_line_is_blank()):
            self.reader.forward()
            super().scan_to_next_token()

    def _rest_of_line_is_blank(self) -> bool:
        ahead = 0
        while self.reader.peek(ahead) in " \t":
            ahead += 1
        return self.reader.peek(ahead) in "#\r\n\0"


def _syntax_error(error: MarkedYAMLError) -> str:
    problem = str(error.problem or error.context)
    if problem.startswith(_ALIAS):
        return "a value that begins with * stands for an anchor (&), and there is none of that name"
    if problem.startswith(_TAG_HANDLE):
        return "a value that begins with ! is a tag, and there is none of that name"
    return f"{error.context}, {problem}" if problem.startswith("but ") else problem


def _syntax_hint(error: MarkedYAMLError) -> str | None:
    problem = str(error.problem)
    if "\\t" in problem:
        return "indent with spaces: YAML allows no tabs there"
    if "cannot start any token" in problem or problem.startswith((_ALIAS, _TAG_HANDLE)):
        return "put the value in quotes"
    if "mapping values are not allowed" in problem:
        return 'put a value that has ": " in it in quotes, and indent the keys of one map alike'
    return None


def _place(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _step(node: Node | None, part: str | int) -> tuple[Node, Node] | None:
    """The node that shows a part of a key path, and the node of its value."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if isinstance(key, ScalarNode) and key.value == part:
                return key, value
    if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


class _Builder:
    """Makes plain values of nodes."""

    def __init__(self, document: Document, *, raw: bool) -> None:
        self.document = document
        self.raw = raw
        self.built = 0

    def build(self, node: Node, path: Path) -> Any:
        self.built += 1
        if self.built > _MOST_NODES:
            raise ConfigError(f"not a {self.document.noun}: too many values", where=self.document.name)
        if isinstance(node, MappingNode | SequenceNode) and node.tag not in _CONTAINER_TAGS:
            self._flaw(node, path, *_NO_TAGS)
        if isinstance(node, MappingNode):
            return dict(self._items(node, path))
        if isinstance(node, SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _items(self, node: MappingNode, path: Path) -> Iterator[tuple[str, Any]]:
        first: dict[str, Node] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self._flaw(key, path, "a key that is a list or a map", "keys are plain words")
                continue
            name = str(key.value)
            if name in first:
                line = first[name].start_mark.line + 1
                what = f'"{name}" is given twice, first in line {line}'
                self.document.flaws.append(Flaw(_place(key), (*path, name), what, "keep one of them", line))
                continue
            first[name] = key
            yield name, self.build(value, (*path, name))

    def _scalar(self, node: Node, path: Path) -> Any:
        tag, text = str(node.tag), str(node.value)
        if tag not in _SCALAR_TAGS:
            self._flaw(node, path, *_NO_TAGS)
        if self.raw or tag not in _SCALAR_TAGS:
            return text
        if tag == f"{_TAG}null":
            return None
        if tag == f"{_TAG}bool":
            return text.lower() in ("true", "yes", "on")
        if tag in (f"{_TAG}int", f"{_TAG}float"):
            return _number(text, whole=tag.endswith("int"))
        return text

    def _flaw(self, node: Node, path: Path, what: str, hint: str) -> None:
        self.document.flaws.append(Flaw(_place(node), path, what, hint))


def _number(text: str, *, whole: bool) -> int | float | str:
    """A number as YAML 1.2 writes it; what turns out to be none stays text."""
    plain = text.replace("_", "").lower()
    try:
        if not whole:
            return float(plain.replace(".inf", "inf").replace(".nan", "nan"))
        base = 8 if "0o" in plain else 16 if "0x" in plain else 10
        return int(plain, base)
    except ValueError:
        return text
