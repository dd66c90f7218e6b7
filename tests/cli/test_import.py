"""`shoal import`: the shoal.yaml that a nutcracker.yml comes to, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from inline_snapshot import snapshot

from shoal import config, nutcracker
from shoal.cli import import_
from shoal.cli.ring import ring_of
from shoal.errors import ConfigError
from shoal.plane import Ring, ShardSpec
from shoal.ports import own_address
from shoal.topology import Endpoint
from tests.harness import LOOPBACK, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.harness import RedisServer, Servers, Stack

    Shoal = Callable[..., str]

FILE, OUT = Path("nutcracker.yml"), Path("shoal.yaml")
EXAMPLES = Path(__file__).parents[2] / "examples" / "from-twemproxy"
ONE = """\
p:
  listen: 127.0.0.1:22121
  redis: true
  redis_auth: hunter2
  servers:
   - 127.0.0.1:6379:1 one
   - 127.0.0.1:6380:2 two
"""
PASSWORD_FREE = ONE.replace("  redis_auth: hunter2\n", "")


@pytest.fixture(autouse=True)
def _the_file(shoal: Shoal) -> None:
    FILE.write_text(ONE)


def test_four_hosts_to_standard_output(shoal: Shoal) -> None:
    FILE.write_text((EXAMPLES / "nutcracker.yml").read_text())
    assert shoal("import", "nutcracker.yml", "--proxy", "10.211.55.6", "--proxy", "10.211.55.7") == snapshot("""\
exit 0
--- stdout
# Written by `shoal import` from nutcracker.yml. Look at what it means with `shoal check`.
# Every key is where it was: labels, weights, order, hash and distribution are those of that file.
#
# It does not say everything. Assumed, so look at these:
#   - the sentinels are to be at 10.211.55.6:26379, 10.211.55.7:26379, 10.211.55.6:26380
#   - every server is a master, and its replicas are not known, as no sentinel was asked
#   - the sentinels will know the masters by the names of the shards

cluster: redis-cluster

# The name of a shard is Sentinel's name of its master. The ring hashes the `label`, or the name if there is
# none: change neither, wherever the servers go, or keys are looked for on another shard.
shards:
  shard1:
    label: "10.211.55.6:6379"
    master: "10.211.55.6:6379"
    replicas: []
  shard2:
    label: "10.211.55.7:6379"
    master: "10.211.55.7:6379"
    replicas: []

sentinel:
  nodes: ["10.211.55.6:26379", "10.211.55.7:26379", "10.211.55.6:26380"]

# No password, as before: everybody in that network may read and write. With one on all servers, write
#   auth: {password_file: ./secret}
insecure: true

proxy:
  nodes:
    proxy1: {host: "10.211.55.6"}
    proxy2: {host: "10.211.55.7"}
  listen: "0.0.0.0:22121"
  hash: fnv1a_64
  distribution: ketama
--- stderr
warning: assumed: the sentinels are to be at 10.211.55.6:26379, 10.211.55.7:26379, 10.211.55.6:26380
warning: assumed: every server is a master, and its replicas are not known, as no sentinel was asked
warning: assumed: the sentinels will know the masters by the names of the shards
warning: left out: redis-cluster.auto_eject_hosts: true: no shard leaves the ring: its requests wait for the failover
warning: left out: redis-cluster.server_retry_timeout: 2000: no shard leaves the ring
warning: left out: redis-cluster.server_failure_limit: 1: no shard leaves the ring
""")


def test_what_it_writes_is_valid_and_nothing_is_secret_in_it(shoal: Shoal) -> None:
    assert shoal("import", "nutcracker.yml", "-o", "shoal.yaml") == snapshot("""\
exit 0
--- stderr
Wrote shoal.yaml: 1 pool, 2 shards, 0 replicas and 3 sentinels. Every key is where it was.
warning: assumed: there are to be 3 sentinels, all on this machine
warning: assumed: every server is a master, and its replicas are not known, as no sentinel was asked
warning: assumed: the sentinels will know the masters by the names of the shards
Next:
  shoal check                  what it means
  let sentinels watch the masters, and import again with --sentinel HOST:PORT
""")
    assert OUT.read_text() == snapshot("""\
# Written by `shoal import` from nutcracker.yml. Look at what it means with `shoal check`.
# Every key is where it was: labels, weights, order, hash and distribution are those of that file.
#
# It does not say everything. Assumed, so look at these:
#   - there are to be 3 sentinels, all on this machine
#   - every server is a master, and its replicas are not known, as no sentinel was asked
#   - the sentinels will know the masters by the names of the shards

cluster: p

# The name of a shard is Sentinel's name of its master. The ring hashes the `label`, or the name if there is
# none: change neither, wherever the servers go, or keys are looked for on another shard.
shards:
  one:
    master: "127.0.0.1:6379"
    replicas: []
  two:
    weight: 2
    master: "127.0.0.1:6380"
    replicas: []

sentinel:
  nodes: 3

# One password for servers, sentinels and clients.
auth:
  password_file: "./secret"

proxy:
  nodes:
    proxy1: {host: local, admin: 22180, stats: 22222}
  listen: "127.0.0.1:22121"
  hash: fnv1a_64
  distribution: ketama
""")
    assert Path("secret").read_text() == "hunter2\n"
    assert Path("secret").stat().st_mode & 0o777 == 0o600
    assert shoal("check").startswith("exit 0\n")
    topology = config.load(OUT)
    assert topology.auth.password is not None
    assert topology.auth.password.get_secret_value() == "hunter2"


def test_the_password_is_never_shown(shoal: Shoal) -> None:
    said = shoal("import", "nutcracker.yml")
    assert "hunter2" not in said
    assert said.endswith("Put redis_auth's password into the file `secret` beside it, with mode 0600.\n")
    assert not Path("secret").exists()


def test_a_password_file_of_one_s_own(shoal: Shoal) -> None:
    Path("keys").mkdir()
    Path("keys/redis").touch(0o600)
    Path("keys/redis").write_text("hunter2\n")
    Path("out").mkdir()
    assert shoal("import", "nutcracker.yml", "-o", "out/shoal.yaml", "--password-file", "keys/redis").startswith(
        "exit 0\n"
    )
    assert config.load(Path("out/shoal.yaml")).auth.password_file == "../keys/redis"
    assert not Path("out/secret").exists()
    Path("keys/redis").write_text("another\n")
    assert shoal("import", "nutcracker.yml", "--password-file", "keys/redis") == snapshot("""\
exit 2
--- stderr
error: this is another password than the file's redis_auth
  at: keys/redis
""")


def test_nothing_is_overwritten(shoal: Shoal) -> None:
    OUT.write_text("mine")
    assert shoal("import", "nutcracker.yml", "-o", "shoal.yaml") == snapshot("""\
exit 2
--- stderr
error: shoal.yaml is there already
  hint: --force overwrites it
""")
    assert not Path("secret").exists()
    OUT.unlink()
    Path("secret").write_text("mine")
    assert shoal("import", "nutcracker.yml", "-o", "shoal.yaml") == snapshot("""\
exit 2
--- stderr
error: secret is there already
  hint: --force overwrites it
""")
    assert not OUT.exists()
    assert Path("secret").read_text() == "mine"


def test_unless_it_is_told_to(shoal: Shoal) -> None:
    OUT.write_text("mine")
    Path("secret").write_text("mine, and everybody's")
    Path("secret").chmod(0o644)
    assert shoal("import", "nutcracker.yml", "-o", "shoal.yaml", "--force").startswith("exit 0\n")
    assert Path("secret").read_text() == "hunter2\n"
    assert Path("secret").stat().st_mode & 0o777 == 0o600


def test_a_secret_that_is_the_same_may_be_there(shoal: Shoal) -> None:
    Path("secret").write_text("hunter2\n")
    assert shoal("import", "nutcracker.yml", "-o", "shoal.yaml").startswith("exit 0\n")
    assert Path("secret").stat().st_mode & 0o777 == 0o600


def test_pools_may_be_picked(shoal: Shoal) -> None:
    FILE.write_text(ONE + ONE.replace("p:", "q:").replace("22121", "22122").replace("hunter2", "hunter3"))
    assert shoal("import", "nutcracker.yml") == snapshot("""\
exit 2
--- stderr
error: pools "p" and "q" do not have the same redis_auth, and a topology has one password
  hint: write a file for each pool, with --pool
""")
    assert shoal("import", "nutcracker.yml", "--pool", "q").startswith("exit 0\n")
    assert shoal("import", "nutcracker.yml", "--pool", "r") == snapshot("""\
exit 2
--- stderr
error: Invalid value for --pool: there is no pool 'r', only p, q
  hint: see `shoal import --help`
""")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("127.0.0.1:6379:1 one", "127.0.0.1:6379:1001 one"),
            snapshot("""\
exit 2
--- stderr
error: 1001 is too much: at most 1000
  at: nutcracker.yml as shoal.yaml shards.one.weight
"""),
        ),
        (
            ("hunter2", "hunter 2"),
            snapshot("""\
exit 2
--- stderr
error: the password has a space, a quote or an unprintable character, which a server could not read back
  at: nutcracker.yml as shoal.yaml auth.password_file
  hint: use one line of letters, digits and other signs
"""),
        ),
        (
            ("redis: true", "redis: false"),
            snapshot("""\
exit 2
--- stderr
error: pool 'p' is not for Redis: it has no `redis: true`
  at: nutcracker.yml:3:3 p.redis
  hint: Shoal serves Redis pools only; a pool of memcached stays with nutcracker
"""),
        ),
    ],
)
def test_what_shoal_cannot_have(change: tuple[str, str], message: str, shoal: Shoal) -> None:
    FILE.write_text(ONE.replace(*change))
    assert shoal("import", "nutcracker.yml", "-o", "shoal.yaml") == message
    assert not OUT.exists()
    assert not Path("secret").exists()


def test_sentinels_that_do_not_answer(shoal: Shoal, port: Callable[[], int]) -> None:
    numbers = port(), port()
    sentinels = [word for number in numbers for word in ("--sentinel", f"127.0.0.1:{number}")]
    said = shoal("import", "nutcracker.yml", *sentinels)
    for place, number in zip(("X", "Y"), numbers, strict=True):
        said = said.replace(str(number), place)
    assert said == snapshot("""\
exit 1
--- stderr
error: 0 of 2 sentinels answered, a majority is 2: 127.0.0.1:X (Connection refused), 127.0.0.1:Y (Connection refused)
  hint: run this where they can be reached, with the password that they want
""")
    assert shoal("import", "nutcracker.yml", "--sentinel", "127.0.0.1") == snapshot("""\
exit 2
--- stderr
error: Invalid value for --sentinel: "127.0.0.1" has no port
  hint: see `shoal import --help`
""")


def test_sentinels_of_some_pools_only(shoal: Shoal) -> None:
    FILE.write_text(
        PASSWORD_FREE + PASSWORD_FREE.replace("p:", "q:").replace("22121", "22122") + "  sentinels:\n   - 127.0.0.1:1\n"
    )
    assert shoal("import", "nutcracker.yml") == snapshot("""\
exit 2
--- stderr
error: pool "p" has no sentinels, and others have: a topology has one set for all
  hint: name them for all pools with --sentinel, or write a file for each with --pool
""")


@pytest.mark.parametrize("change", [("label: x", "label: y"), ("weight: 2", "weight: 3"), ("hash: md5", "hash: crc32")])
def test_a_ring_that_is_another_one_is_refused(change: tuple[str, str]) -> None:
    text = PASSWORD_FREE.replace("one", "x").replace("redis: true", "redis: true\n  hash: md5")
    pools = nutcracker.parse(text).pools
    source = "{a: {label: x, master: 'local:1'}, two: {weight: 2, master: 'local:2'}}"
    right = f"shards: {source}\nproxy: {{hash: md5}}\ncluster: p\n"
    OUT.write_text(right)
    import_.require_same_rings(pools, config.load(OUT))
    OUT.write_text(right.replace(*change))
    with pytest.raises(ConfigError, match='keys of pool "p" would be looked for elsewhere, so nothing is written'):
        import_.require_same_rings(pools, config.load(OUT))


def test_the_own_address_is_the_one_that_leads_there() -> None:
    assert own_address(Endpoint(LOOPBACK, 6379)) == LOOPBACK


# ------------------------------------------------------------------------------------------------- with real sentinels


def watched_file(stack: Stack, servers: Sequence[str], pool: str = "redis-cluster") -> str:
    """The four-host file with its `sentinels:`, on the ports of a stack."""
    lines = [
        f"{pool}:",
        f"  listen: {LOOPBACK}:22121",
        "  hash: fnv1a_64",
        "  distribution: ketama",
        "  auto_eject_hosts: true",
        "  redis: true",
        "  servers:",
        *(f"   - {server}" for server in servers),
        "  sentinels:",
        *(f"   - {LOOPBACK}:{sentinel.port}:1" for sentinel in stack.sentinels),
    ]
    return "\n".join(lines) + "\n"


def at(server: RedisServer) -> str:
    return f"{LOOPBACK}:{server.port}"


def all_name(stack: Stack, master: RedisServer) -> bool:
    ports = set()
    for sentinel in stack.sentinels:
        with sentinel.client() as client:
            ports.add(client.sentinel_master("a")["port"])
    return ports == {master.port}


def require_the_same_owners(labels: Sequence[str]) -> None:
    """Whatever nutcracker's file puts on a server is on the shard with its label."""
    topology = config.load(OUT)
    before = Ring([ShardSpec(label) for label in labels], "fnv1a_64", "ketama", None)
    after = ring_of(topology, "redis-cluster")
    for number in range(2000):
        key = b"key:%d\xff" % number
        assert before.locate(key) == after.locate(key)


@pytest.mark.integration
def test_servers_without_an_alias_keep_their_keys(servers: Servers, shoal: Shoal) -> None:
    stack = servers.stack(("redis-sharding1", "redis-sharding2"))
    first, second = stack.masters.values()
    stranded = stack.replicas["redis-sharding2"][0]  # where the master was when the file was written
    labels = sorted([at(first), at(stranded)])
    FILE.write_text(watched_file(stack, [f"{label}:1" for label in labels]))
    stack.sentinels[0].kill()
    said = shoal("import", "nutcracker.yml", "-o", "shoal.yaml")
    assert said == snapshot("""\
exit 0
--- stderr
Wrote shoal.yaml: 1 pool, 2 shards, 2 replicas and 3 sentinels. Every key is where it was.
warning: left out: redis-cluster.auto_eject_hosts: true: no shard leaves the ring: its requests wait for the failover
Next:
  shoal check                  what it means
  shoal proxy --node proxy1    serve it in nutcracker's place
""")
    topology = config.load(OUT)
    assert topology.labels("redis-cluster") == {
        at(first): "redis-sharding1",
        at(stranded): "redis-sharding2",
    }
    shard = topology.shards["redis-sharding2"]
    assert (str(shard.master), [str(place) for place in shard.replicas]) == (at(second), [at(stranded)])
    assert {str(place) for place in topology.sentinel.nodes} == {at(sentinel) for sentinel in stack.sentinels}
    assert (topology.sentinel.quorum, topology.sentinel.down_after) == (2, 1000)
    assert topology.sentinel.failover_timeout == 10_000
    require_the_same_owners(labels)
    assert shoal("check").startswith("exit 0\n")


@pytest.mark.integration
def test_after_a_failover_the_label_is_the_old_address(servers: Servers, shoal: Shoal) -> None:
    stack = servers.stack(("a", "b"))
    labels = sorted(map(at, stack.masters.values()))
    FILE.write_text(watched_file(stack, [f"{label}:1" for label in labels]))
    before, after = stack.masters["a"], stack.replicas["a"][0]
    with stack.sentinels[0].client() as client:
        client.execute_command("SENTINEL", "FAILOVER", "a")
    wait_until(lambda: all_name(stack, after), 20.0, "every sentinel to name the new master")
    assert shoal("import", "nutcracker.yml", "-o", "shoal.yaml").startswith("exit 0\n")
    shard = config.load(OUT).shards["a"]
    assert (shard.label, str(shard.master)) == (at(before), at(after))
    assert [str(place) for place in shard.replicas] == [at(before)]
    require_the_same_owners(labels)


@pytest.mark.integration
def test_sentinels_may_be_named_on_the_command_line(servers: Servers, shoal: Shoal) -> None:
    stack = servers.stack(("a",), replicas=0)
    FILE.write_text(PASSWORD_FREE.replace("   - 127.0.0.1:6380:2 two\n", "").replace("one", "a"))
    given = [word for sentinel in stack.sentinels for word in ("--sentinel", at(sentinel))]
    assert shoal("import", "nutcracker.yml", "-o", "shoal.yaml", *given).startswith("exit 0\n")
    shard = config.load(OUT).shards["a"]
    assert (shard.label, str(shard.master)) == (None, at(stack.masters["a"]))


@pytest.mark.integration
def test_a_server_that_no_sentinel_knows(servers: Servers, shoal: Shoal) -> None:
    stack = servers.stack(("a",), replicas=0)
    stranger = free_port()
    FILE.write_text(watched_file(stack, [f"{at(stack.masters['a'])}:1", f"{LOOPBACK}:{stranger}:1"]))
    said = shoal("import", "nutcracker.yml", "-o", "shoal.yaml")
    said = said.replace(str(stranger), "STRANGER").replace(str(stack.masters["a"].port), "MASTER")
    assert said == snapshot("""\
exit 2
--- stderr
error: no sentinel knows server "127.0.0.1:STRANGER"
  at: nutcracker.yml:9 redis-cluster.servers
  hint: the masters they know: a (127.0.0.1:MASTER)
""")
    assert not OUT.exists()
