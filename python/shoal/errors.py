"""The errors of Shoal: one tree, and one way to say what happened, where, and what to do.

    ShoalError
    ├── ConfigError      a file or flag: unreadable, unknown key, wrong type, contradiction        (exit 2)
    ├── EngineError      no redis-server or valkey-server that can be used                         (exit 2)
    ├── StateError       the state directory: another cluster's, not writable, in use              (exit 2)
    ├── PortInUseError   somebody else listens where a part of ours must                           (exit 2)
    ├── ProcessError     a process of ours did not start, or died                                  (exit 1)
    ├── SentinelError    a sentinel did not answer, or not as Sentinel does                        (exit 1)
    ├── SampleError      a server did not give its keys                                            (exit 1)
    ├── HoldError        a proxy does not hold, or not any longer                                  (exit 1)
    ├── SwitchoverError  a master cannot be changed now, or was not                                (exit 1)
    └── PlaneError       the data plane refused what it was asked                                  (exit 1)

Rule: whatever a user can bring about is one of these; anything else that escapes is a bug and keeps its traceback.
`cli.app.main` is the only place that turns them into text on stderr and an exit code: 2 for bad input, 1 otherwise.
"""

from collections.abc import Sequence
from typing import ClassVar, Self


class ShoalError(Exception):
    """What happened, where (a file and key path, an endpoint, a unit), and a hint on what to do."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what, where, hint)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  at: {self.where}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def each(self) -> Sequence["ShoalError"]:
        """The single errors in this one: itself, unless it stands for several."""
        return (self,)


class ConfigError(ShoalError):
    """A configuration cannot be used; `where` reads "shoal.yaml:12:5 shards.a.replicas"."""

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        parts: Sequence["ConfigError"] = (),
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.parts = tuple(parts)

    @classmethod
    def together(cls, errors: Sequence["ConfigError"], noun: str = "topology") -> Self:
        """One error for all the problems of a file, in the order given."""
        first = errors[0]
        if len(errors) == 1:
            return cls(first.what, where=first.where, hint=first.hint)
        return cls(f"{len(errors)} problems in the {noun}", parts=errors)

    def __str__(self) -> str:
        if not self.parts:
            return super().__str__()
        return "\n".join([self.what, *(str(part) for part in self.parts)])

    def each(self) -> Sequence[ShoalError]:
        return self.parts or (self,)


class EngineError(ShoalError):
    """No Redis or Valkey server can be used."""

    exit_code = 2


class StateError(ShoalError):
    """The state directory cannot be used."""

    exit_code = 2


class PortInUseError(ShoalError):
    """Another process already listens on an endpoint that one of ours must bind."""

    exit_code = 2


class ProcessError(ShoalError):
    """A supervised process did not start or did not stay."""


class SentinelError(ShoalError):
    """A sentinel cannot be asked, or its answer makes no sense."""


class SampleError(ShoalError):
    """A server that was to give its keys did not."""


class HoldError(ShoalError):
    """A proxy does not keep a shard's writes back as it was asked."""


class SwitchoverError(ShoalError):
    """A switchover is refused, or was given up; what it had begun is undone."""


class PlaneError(ShoalError):
    """The data plane refused a configuration, a snapshot or a call."""
