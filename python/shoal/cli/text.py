"""How keys and tables are written out; for the commands that print them."""

from collections.abc import Iterator, Sequence


def plain(raw: bytes) -> str:
    """Bytes as a person can read them: what is not printable text is escaped."""
    return "".join(map(_character, raw.decode("utf-8", "surrogateescape")))


def _character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows with their columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
