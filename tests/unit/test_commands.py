"""The command table as people meet it: the reference page, and the lists of a pool's `commands`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from inline_snapshot import snapshot

from shoal.commands import page, refusal, refuse_unknown
from shoal.config import parse
from shoal.errors import ConfigError
from shoal.plane import ModuleCommand, command_table
from shoal.reload import changes
from shoal.serving import of_layout
from shoal.topology import Topology, lay_out, ports_to_choose

ROOT = Path(__file__).parents[2]


def topology(**commands: Any) -> Topology:
    return parse({"shards": {"a": None}, "proxy": {"nodes": 1, "commands": commands}})


def test_the_reference_page_is_what_the_table_says() -> None:
    written = (ROOT / "docs" / "reference" / "commands.md").read_text()
    assert written == page(), "run scripts/reference.py"


def test_the_page_has_a_line_for_every_command() -> None:
    lines = page().splitlines()
    assert sum(line.startswith("| `") for line in lines) == len(command_table())
    assert "| `config set` * | 3 or more | write | no | every shard, OK if all are |" in lines
    assert "| `dbsize` | 0 | read | yes | every shard, counts added up |" in lines


def test_lists_are_given_to_the_workers_in_their_spelling() -> None:
    layout_of = topology(allow=["CONFIG  SET", "debug"], deny=[])
    laid = lay_out(layout_of, {key: 20000 + n for n, key in enumerate(ports_to_choose(layout_of))})
    (pool,) = of_layout(laid, laid.proxies[0]).pools
    assert (pool.spec.allow, pool.spec.deny) == (("config|set", "debug"), ())


def test_a_reload_says_what_is_allowed_and_denied_now() -> None:
    layout_of = topology()
    laid = lay_out(layout_of, {key: 20000 + n for n, key in enumerate(ports_to_choose(layout_of))})
    service = of_layout(laid, laid.proxies[0])
    (pool,) = service.pools
    denying = replace(pool, spec=replace(pool.spec, deny=("keys", "flushall")))
    found = changes(service, replace(service, pools=(denying,)))
    assert found.sentences == ('pool "shoal": commands denied: keys, flushall',)
    assert (found.restart, found.remap) == ((), ())


def test_commands_of_modules_are_given_to_the_workers() -> None:
    modules = {"JSON.GET": {"write": False}, "json.mget": {"last_key": -2}, "ft.list": {"first_key": 0}}
    layout_of = topology(modules=modules, deny=["json.get"])
    refuse_unknown(layout_of)
    laid = lay_out(layout_of, {key: 20000 + n for n, key in enumerate(ports_to_choose(layout_of))})
    (pool,) = of_layout(laid, laid.proxies[0]).pools
    assert pool.spec.modules == (
        ModuleCommand("ft.list", 0, 0, 1, writes=True),
        ModuleCommand("json.get", 1, 1, 1, writes=False),
        ModuleCommand("json.mget", 1, -2, 1, writes=True),
    )


def test_names_of_the_table_are_taken() -> None:
    refuse_unknown(topology(deny=[row.name for row in command_table()]))
    refuse_unknown(topology(allow=[row.name for row in command_table() if not refusal(row)]))


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (
            {"deny": ["flushal"]},
            snapshot("""\
there is no command "flushal"
  at: pools.shoal.commands.deny
  hint: did you mean "flushall"?\
"""),
        ),
        (
            {"allow": ["shutdown"]},
            snapshot("""\
"shutdown" cannot be allowed: it administers one server: connect to that server
  at: pools.shoal.commands.allow
  hint: take it out of the list\
"""),
        ),
        (
            {"modules": {"get": {}}},
            snapshot("""\
"get" is no command of a module
  at: pools.shoal.commands.modules.get
  hint: take it out: Shoal knows where its keys are\
"""),
        ),
    ],
)
def test_a_name_that_cannot_stand_there_is_refused(lists: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        refuse_unknown(topology(**lists))
    assert str(refused.value) == message
