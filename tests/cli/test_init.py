"""`shoal init`: what it writes and says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from inline_snapshot import snapshot

from shoal import config
from shoal.topology import ports_to_choose, warnings

if TYPE_CHECKING:
    from collections.abc import Callable

    Shoal = Callable[..., str]

FILE = Path("shoal.yaml")


def test_it_writes_a_topology_and_says_what_to_do_next(shoal: Shoal) -> None:
    assert shoal("init") == snapshot("""\
exit 0
--- stderr
Wrote shoal.yaml: 2 shards with a replica each, 3 sentinels and 2 proxies, all on this machine.
Next:
  shoal check    what it means
  shoal up       start it
""")
    assert FILE.stat().st_mode & 0o777 == 0o644


def test_what_it_writes_is_valid_and_all_on_this_machine(shoal: Shoal) -> None:
    shoal("init")
    topology = config.load(FILE)
    assert {name: len(shard.replicas) for name, shard in topology.shards.items()} == {"a": 1, "b": 1}
    assert (len(topology.sentinel.nodes), len(topology.proxy.nodes)) == (3, 2)
    assert len(ports_to_choose(topology)) == 4 + 3 + 2 * 3
    assert warnings(topology) == []


def test_it_is_the_example_for_one_machine(shoal: Shoal) -> None:
    shoal("init")
    example = Path(__file__).parents[2] / "examples" / "one-machine" / "shoal.yaml"
    assert FILE.read_text() == example.read_text()


def test_its_comments_can_be_uncommented(shoal: Shoal) -> None:
    shoal("init")
    Path("secret").touch(0o600)
    Path("secret").write_text("hunter2\n")
    text = FILE.read_text()
    for line in ("# hosts:", "#   node1: 10.0.0.1", "#   node2: 10.0.0.2", "# auth:", "#   password_file: ./secret"):
        assert line in text
        text = text.replace(line, line[2:])
    FILE.write_text(text.replace("  # maxmemory", "  maxmemory"))
    topology = config.load(FILE)
    assert topology.auth.enabled
    assert set(topology.hosts) == {"node1", "node2"}
    assert topology.redis["maxmemory"] == ("1gb",)


def test_another_path_is_named_in_what_to_do_next(shoal: Shoal) -> None:
    assert shoal("init", "my stack.yaml") == snapshot("""\
exit 0
--- stderr
Wrote my stack.yaml: 2 shards with a replica each, 3 sentinels and 2 proxies, all on this machine.
Next:
  shoal check -f 'my stack.yaml'    what it means
  shoal up -f 'my stack.yaml'       start it
""")


def test_it_overwrites_nothing(shoal: Shoal) -> None:
    FILE.write_text("mine")
    assert shoal("init") == snapshot("""\
exit 2
--- stderr
error: shoal.yaml is there already
  hint: shoal init --force overwrites it; shoal init OTHER.yaml writes another
""")
    assert FILE.read_text() == "mine"


def test_unless_it_is_told_to(shoal: Shoal) -> None:
    FILE.write_text("mine, and longer than what is written\n" * 1000)
    assert shoal("init", "--force").startswith("exit 0")
    assert config.load(FILE).shards


def test_where_it_cannot_write(shoal: Shoal) -> None:
    assert shoal("init", "no/such/directory.yaml") == snapshot("""\
exit 2
--- stderr
error: no/such/directory.yaml cannot be written: No such file or directory
""")
