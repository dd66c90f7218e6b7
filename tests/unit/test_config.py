"""What a topology file that cannot be used says about it: the line, the key path, what is wrong and what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from inline_snapshot import snapshot

from shoal import config
from shoal.errors import ConfigError
from shoal.topology import Endpoint, lay_out

EXAMPLES = Path(__file__).parents[2] / "examples"
SHARDS = "shards: {a: {replicas: 1}}\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are named as a user names them: relative to where they are."""
    monkeypatch.chdir(tmp_path)


def refusal(text: str | bytes) -> str:
    Path("shoal.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        config.load(Path("shoal.yaml"))
    return "\n".join(str(error) for error in caught.value.each())


def secret(text: str | bytes = "hunter2\n", mode: int = 0o600) -> None:
    Path("secret").write_bytes(text if isinstance(text, bytes) else text.encode())
    Path("secret").chmod(mode)


# ---------------------------------------------------------------------------------------------------------- the file


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(Path("nowhere.yaml"))
    assert str(caught.value) == snapshot("""\
there is no topology file
  at: nowhere.yaml
  hint: give it with -f, or write one with `shoal init`\
""")


def test_a_directory_in_place_of_the_file() -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(Path())
    assert str(caught.value) == snapshot("""\
the topology cannot be read: Is a directory
  at: .\
""")


def test_an_empty_file() -> None:
    assert refusal("# nothing yet\n") == snapshot("""\
the topology is empty
  at: shoal.yaml
  hint: `shoal init` writes one to begin with\
""")


def test_a_file_that_is_not_text() -> None:
    assert refusal(b"cluster: x\nshards: \xff\n") == snapshot("""\
the topology is not UTF-8 text
  at: shoal.yaml:2\
""")


def test_a_file_that_is_too_large() -> None:
    assert refusal("#" * (5 << 20)) == snapshot("""\
the topology is larger than 4 MB
  at: shoal.yaml\
""")


def test_a_file_that_is_not_a_map() -> None:
    assert refusal("- a\n- b\n") == snapshot("""\
expected a map of settings, got a list
  at: shoal.yaml:1:1
  hint: `shoal init` writes a file to begin with\
""")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "shards: [",
            snapshot("""\
not YAML: expected the node content, but found '<stream end>'
  at: shoal.yaml:1:10\
"""),
        ),
        (
            "shards:\n\ta: 1\n",
            snapshot("""\
not YAML: found character '\\t' that cannot start any token
  at: shoal.yaml:2:1
  hint: indent with spaces: YAML allows no tabs there\
"""),
        ),
        (
            "cluster: a: b\n",
            snapshot("""\
not YAML: mapping values are not allowed here
  at: shoal.yaml:1:11
  hint: put a value that has ": " in it in quotes, and indent the keys of one map alike\
"""),
        ),
        (
            "cluster: @home\n",
            snapshot("""\
not YAML: found character '@' that cannot start any token
  at: shoal.yaml:1:10
  hint: put the value in quotes\
"""),
        ),
        (
            "cluster: *nobody\n",
            snapshot("""\
not YAML: a value that begins with * stands for an anchor (&), and there is none of that name
  at: shoal.yaml:1:10
  hint: put the value in quotes\
"""),
        ),
        (
            "a: 1\n---\nb: 2\n",
            snapshot("""\
not YAML: expected a single document in the stream, but found another document
  at: shoal.yaml:2:1\
"""),
        ),
        (
            "cluster: x\nshards: \x07\n",
            snapshot("""\
not YAML: a character that a text file cannot have
  at: shoal.yaml:2\
"""),
        ),
        (
            "[" * 700,
            snapshot("""\
not a topology: nested too deeply
  at: shoal.yaml\
"""),
        ),
        (
            "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + "".join(
                f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdef", "bcdefg", strict=True)
            ),
            snapshot("""\
not a topology: too many values
  at: shoal.yaml\
"""),
        ),
    ],
)
def test_what_is_not_yaml(text: str, message: str) -> None:
    assert refusal(text) == message


# ---------------------------------------------------------------------------------------------------- single settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "cluster: x\n",
            snapshot("""\
there are no shards
  at: shoal.yaml shards
  hint: the shortest topology is `shards: {a: {replicas: 1}, b: {replicas: 1}}`\
"""),
        ),
        (
            "shards: {}\n",
            snapshot("""\
"shards" is empty
  at: shoal.yaml:1:1 shards
  hint: the shortest topology is `shards: {a: {replicas: 1}, b: {replicas: 1}}`\
"""),
        ),
        (
            SHARDS + "shard: 1\n",
            snapshot("""\
unknown key "shard"
  at: shoal.yaml:2:1 shard
  hint: did you mean "shards"?\
"""),
        ),
        (
            SHARDS + "hosts: {one: {address: 10.0.0.1, zzz: 1}}\n",
            snapshot("""\
unknown key "zzz"
  at: shoal.yaml:2:34 hosts.one.zzz
  hint: known here: address, ssh\
"""),
        ),
        (
            SHARDS + "cluster: my cluster\n",
            snapshot("""\
"my cluster" cannot be a name
  at: shoal.yaml:2:1 cluster
  hint: letters, digits, _ . and -, at most 63 of them, and neither . nor - first\
"""),
        ),
        (
            "shards:\n  my shard: {replicas: 1}\n",
            snapshot("""\
"my shard" cannot be a name
  at: shoal.yaml:2:3 shards.my shard
  hint: letters, digits, _ . and -, at most 63 of them, and neither . nor - first\
"""),
        ),
        (
            "shards:\n  a: {replicas: 1}\n  b:\n    replicsa: 2\n",
            snapshot("""\
unknown key "replicsa"
  at: shoal.yaml:4:5 shards.b.replicsa
  hint: did you mean "replicas"?\
"""),
        ),
        (
            "shards:\n  a: {replicas: 1}\n  b: {}\n  a: {replicas: 2}\n",
            snapshot("""\
"a" is given twice, first in line 2
  at: shoal.yaml:4:3 shards.a
  hint: keep one of them\
"""),
        ),
        (
            "shards: {a: {replicas: two}}\n",
            snapshot("""\
expected a number from 0 to 1000, or a list of places, got "two"
  at: shoal.yaml:1:14 shards.a.replicas\
"""),
        ),
        (
            "shards: {a: {replicas: -1}}\n",
            snapshot("""\
expected a number from 0 to 1000, or a list of places, got -1
  at: shoal.yaml:1:14 shards.a.replicas\
"""),
        ),
        (
            "shards: {a: {weight: 0}}\n",
            snapshot("""\
0 is too little: at least 1
  at: shoal.yaml:1:14 shards.a.weight\
"""),
        ),
        (
            "shards: {a: {label: ''}}\n",
            snapshot("""\
"" cannot be a label
  at: shoal.yaml:1:14 shards.a.label
  hint: write text that can be printed, at least one character\
"""),
        ),
        (
            "shards: {a: {label: 7}}\n",
            snapshot("""\
expected text, got 7
  at: shoal.yaml:1:14 shards.a.label
  hint: put it in quotes\
"""),
        ),
        (
            "shards: [a, b]\n",
            snapshot("""\
expected a map, got a list
  at: shoal.yaml:1:1 shards
  hint: write names, each with its settings after a colon\
"""),
        ),
        (
            'shards: {a: {replicas: ["local:7001"]}}\n',
            snapshot("""\
a shard without a master
  at: shoal.yaml:1:10 shards.a
  hint: add master: "host:port", or give only the number of replicas to have all of it here\
"""),
        ),
        (
            'shards: {a: {master: "local:7000", replicas: 1}}\n',
            snapshot("""\
a number of replicas beside a master that has its place
  at: shoal.yaml:1:10 shards.a
  hint: list where the replicas are ("host:port"), or leave out the master to have all of it here\
"""),
        ),
        (
            'shards: {a: {master: "local:70000"}}\n',
            snapshot("""\
"70000" is not a port: a number from 1 to 65535
  at: shoal.yaml:1:14 shards.a.master
  hint: write it as text: "host:port", for example "node6:6379"\
"""),
        ),
        (
            "shards: {a: {master: 7000}}\n",
            snapshot("""\
expected where it runs, got 7000
  at: shoal.yaml:1:14 shards.a.master
  hint: write it as text: "host:port", for example "node6:6379"\
"""),
        ),
        (
            "shards: {a: {master: {host: local, port: 7000}}}\n",
            snapshot("""\
expected where it runs, got a map
  at: shoal.yaml:1:14 shards.a.master
  hint: write it as text: "host:port", for example "node6:6379"\
"""),
        ),
        (
            SHARDS + "hosts: {one: one.example.com}\n",
            snapshot("""\
"one.example.com" is not an IP address
  at: shoal.yaml:2:9 hosts.one
  hint: a name is not enough: while it is slow to resolve, Sentinel stops failing over\
"""),
        ),
        (
            SHARDS + "hosts: {one: 0.0.0.0}\n",
            snapshot("""\
"0.0.0.0" is not an address that others can reach
  at: shoal.yaml:2:9 hosts.one
  hint: give the address of one interface\
"""),
        ),
        (
            SHARDS + "hosts: {one: {adress: 10.0.0.1}}\n",
            snapshot("""\
"address" is missing
  at: shoal.yaml:2:9 hosts.one
  hint: IP address at which all other hosts reach it.
unknown key "adress"
  at: shoal.yaml:2:15 hosts.one.adress
  hint: did you mean "address"?\
"""),
        ),
        (
            SHARDS + "sentinel: {down_after: 1500}\n",
            snapshot("""\
1500 is not a duration
  at: shoal.yaml:2:12 sentinel.down_after
  hint: say in which unit: "1500ms" or "1500s"\
"""),
        ),
        (
            SHARDS + "sentinel: {down_after: soon}\n",
            snapshot("""\
"soon" is not a duration
  at: shoal.yaml:2:12 sentinel.down_after
  hint: write a number and its unit, for example "1500ms" or "4s"\
"""),
        ),
        (
            SHARDS + "sentinel: {down_after: 50ms}\n",
            snapshot("""\
50ms is too little: at least 100ms
  at: shoal.yaml:2:12 sentinel.down_after\
"""),
        ),
        (
            SHARDS + "sentinel: {nodes: 0}\n",
            snapshot("""\
expected a number from 1 to 1000, or every one with its place, got 0
  at: shoal.yaml:2:12 sentinel.nodes\
"""),
        ),
        (
            SHARDS + "sentinel: {nodes: []}\n",
            snapshot("""\
"nodes" is empty
  at: shoal.yaml:2:12 sentinel.nodes
  hint: at least one is needed; leave the key out for the default\
"""),
        ),
        (
            SHARDS + "sentinel: {quorum: '2'}\n",
            snapshot("""\
expected a whole number, got "2"
  at: shoal.yaml:2:12 sentinel.quorum
  hint: write it without quotes\
"""),
        ),
        (
            SHARDS + "sentinel: !mine {nodes: 3}\n",
            snapshot("""\
a YAML tag, which means nothing here
  at: shoal.yaml:2:11 sentinel
  hint: write the value without it\
"""),
        ),
        (
            SHARDS + "insecure: yes\n",
            snapshot("""\
expected true or false, got "yes"
  at: shoal.yaml:2:1 insecure\
"""),
        ),
        (
            SHARDS + "proxy: {nodes: {p: {port: 0}}}\n",
            snapshot("""\
0 is not a port: a number from 1 to 65535
  at: shoal.yaml:2:21 proxy.nodes.p.port\
"""),
        ),
        (
            SHARDS + "proxy: {nodes: {p: {port: true}}}\n",
            snapshot("""\
expected a whole number, got true
  at: shoal.yaml:2:21 proxy.nodes.p.port\
"""),
        ),
        (
            SHARDS + "proxy: {nodes: {}}\n",
            snapshot("""\
"nodes" is empty
  at: shoal.yaml:2:9 proxy.nodes
  hint: at least one is needed; leave the key out for the default\
"""),
        ),
        (
            SHARDS + "proxy: {hash: fnv1a64}\n",
            snapshot("""\
there is no hash "fnv1a64"
  at: shoal.yaml:2:9 proxy.hash
  hint: did you mean "fnv1a_64"?\
"""),
        ),
        (
            SHARDS + "proxy: {distribution: consistent}\n",
            snapshot("""\
there is no distribution "consistent"
  at: shoal.yaml:2:9 proxy.distribution
  hint: one of ketama, modula, random\
"""),
        ),
        (
            SHARDS + 'proxy: {hash_tag: "{"}\n',
            snapshot("""\
hash_tag "{" is not two characters
  at: shoal.yaml:2:9 proxy.hash_tag
  hint: write the opening and the closing one: "{}"\
"""),
        ),
        (
            SHARDS + "proxy: {hash_tag: {}}\n",
            snapshot("""\
expected text, got a map
  at: shoal.yaml:2:9 proxy.hash_tag
  hint: put it in quotes\
"""),
        ),
        (
            SHARDS + "proxy: {hold: {bytes: lots}}\n",
            snapshot("""\
"lots" is not a size
  at: shoal.yaml:2:16 proxy.hold.bytes
  hint: write a number of bytes, or for example "64mb"\
"""),
        ),
        (
            SHARDS + "proxy: {hold: 4s}\n",
            snapshot("""\
expected a map of settings, got "4s"
  at: shoal.yaml:2:9 proxy.hold\
"""),
        ),
        (
            SHARDS + "proxy: {max_inflite: 3}\n",
            snapshot("""\
unknown key "max_inflite"
  at: shoal.yaml:2:9 proxy.max_inflite
  hint: did you mean "max_inflight"?\
"""),
        ),
        (
            SHARDS + "pools: {x: {listen: localhost:1}}\n",
            snapshot("""\
"localhost" is not an address to listen on, as "0.0.0.0" or "10.0.0.5" is
  at: shoal.yaml:2:13 pools.x.listen
  hint: write "address:port", for example "0.0.0.0:22121", or just a port\
"""),
        ),
        (
            SHARDS + "pools: {x: {}}\nproxy: {hash: md5}\n",
            snapshot("""\
"hash" belongs to a pool
  at: shoal.yaml:3:9 proxy.hash
  hint: with `pools:` given, the settings of each pool stand there\
"""),
        ),
        (
            SHARDS + "vip: {address: 10.0.0.1}\n",
            snapshot("""\
"interface" is missing
  at: shoal.yaml:2:1 vip
  hint: Network interface that carries it.\
"""),
        ),
        (
            SHARDS + "vip: {address: 10.0.0.1, interface: eth0, router_id: 256}\n",
            snapshot("""\
256 is too much: at most 255
  at: shoal.yaml:2:43 vip.router_id\
"""),
        ),
        (
            SHARDS + "redis: {save: {every: 900}}\n",
            snapshot("""\
expected what follows the directive in redis.conf, got a map
  at: shoal.yaml:2:9 redis.save
  hint: write it as text: "900 1"\
"""),
        ),
        (
            SHARDS + "redis: {save: []}\n",
            snapshot("""\
an empty list of values
  at: shoal.yaml:2:9 redis.save
  hint: leave the directive out\
"""),
        ),
        (
            SHARDS + 'redis: {save: "900 1\\nport 1"}\n',
            snapshot("""\
"900 1\\nport 1" has a line break or an unprintable character
  at: shoal.yaml:2:9 redis.save
  hint: one line for each directive\
"""),
        ),
        (
            SHARDS + "redis: {logo: '\"open'}\n",
            snapshot("""\
""open" has a quote that does not stand around a whole argument
  at: shoal.yaml:2:9 redis.logo\
"""),
        ),
    ],
)
def test_a_setting_that_cannot_be(text: str, message: str) -> None:
    assert refusal(text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "proxy: {failover: fast}\n",
            snapshot("""\
failover: fast is not supported yet in this release
  at: shoal.yaml:2:9 proxy.failover
  hint: leave it out, or write strict\
"""),
        ),
        (
            "proxy: {durability: replicated}\n",
            snapshot("""\
durability: replicated is not supported yet in this release
  at: shoal.yaml:2:9 proxy.durability
  hint: leave it out, or write async\
"""),
        ),
        (
            "proxy: {replay: idempotent}\n",
            snapshot("""\
"replay" is not supported yet in this release
  at: shoal.yaml:2:9 proxy.replay\
"""),
        ),
        (
            "pools: {x: {stale_reads: false}}\n",
            snapshot("""\
"stale_reads" is not supported yet in this release
  at: shoal.yaml:2:13 pools.x.stale_reads\
"""),
        ),
        (
            "proxy: {busy_poll: 50us}\n",
            snapshot("""\
"busy_poll" is not supported yet in this release
  at: shoal.yaml:2:9 proxy.busy_poll\
"""),
        ),
    ],
)
def test_a_setting_of_a_later_release_is_not_called_unknown(text: str, message: str) -> None:
    assert refusal(SHARDS + text) == message


# ------------------------------------------------------------------------------------------ settings against each other

HOSTS = "hosts: {node5: 10.0.0.5, node6: 10.0.0.6}\ninsecure: true\nsentinel: {nodes: [node5, node6, node5]}\n"
PROXIES = "proxy: {nodes: {p1: {host: node5}, p2: {host: node6}}}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            SHARDS + "sentinel: {nodes: 3, quorum: 1}\n",
            snapshot("""\
quorum 1 is no majority of 3 sentinels: 2 others may see the master alive
  at: shoal.yaml:2:22 sentinel.quorum
  hint: write 2, or leave it out; the lease that keeps two masters from being written to needs a majority\
"""),
        ),
        (
            SHARDS + "sentinel: {nodes: 4, quorum: 2}\n",
            snapshot("""\
quorum 2 is no majority of 4 sentinels: 2 others may see the master alive
  at: shoal.yaml:2:22 sentinel.quorum
  hint: write 3, or leave it out; the lease that keeps two masters from being written to needs a majority\
"""),
        ),
        (
            SHARDS + "sentinel: {nodes: 3, quorum: 4}\n",
            snapshot("""\
quorum 4 can never be reached by 3 sentinels
  at: shoal.yaml:2:22 sentinel.quorum
  hint: write 2, or leave it out; the lease that keeps two masters from being written to needs a majority\
"""),
        ),
        (
            HOSTS + PROXIES + "shards: {a: {master: nod6, replicas: [node5]}}\n",
            snapshot("""\
there is no host "nod6"
  at: shoal.yaml:5:14 shards.a.master
  hint: did you mean "node6"?\
"""),
        ),
        (
            SHARDS + "proxy: {nodes: {p: {host: nowhere}}}\n",
            snapshot("""\
there is no host "nowhere"
  at: shoal.yaml:2:17 proxy.nodes.p
  hint: known here: local\
"""),
        ),
        (
            HOSTS + PROXIES + "shards:\n  a: {master: node6:6379}\n  b: {master: node6:6379}\n",
            snapshot("""\
10.0.0.6:6379 is the endpoint of both a-1 and b-1 (see line 6, shards.a.master)
  at: shoal.yaml:7:7 shards.b.master
  hint: give one of them another port\
"""),
        ),
        (
            SHARDS + "proxy:\n  nodes:\n    p1: {port: 7000}\n    p2: {port: 7000}\n",
            snapshot("""\
127.0.0.1:7000 is the endpoint of both p1.shoal and p2.shoal (see line 4, proxy.nodes.p1.port)
  at: shoal.yaml:5:10 proxy.nodes.p2.port
  hint: give one of them another port\
"""),
        ),
        (
            SHARDS + "pools: {x: {listen: 7000}}\n",
            snapshot("""\
127.0.0.1:7000 is the endpoint of both proxy1.x and proxy2.x (see line 2, pools.x.listen)
  at: shoal.yaml:2:13 pools.x.listen
  hint: without a port in `listen`, each proxy of a host gets one of its own\
"""),
        ),
        (
            SHARDS + "pools: {x: {}, y: {}}\nproxy: {nodes: {p: {port: 1}}}\n",
            snapshot("""\
with 2 pools this does not say whose port it is
  at: shoal.yaml:3:21 proxy.nodes.p.port
  hint: give each pool its `listen` instead\
"""),
        ),
        (
            SHARDS + "pools: {x: {shards: [a, b, a]}}\n",
            snapshot("""\
there is no shard "b"
  at: shoal.yaml:2:25 pools.x.shards[1]
  hint: known here: a
shard "a" is in the pool twice
  at: shoal.yaml:2:28 pools.x.shards[2]\
"""),
        ),
        (
            HOSTS + PROXIES + SHARDS,
            snapshot("""\
a-1 is on loopback (127.0.0.1), out of reach for sentinel1 on node5
  at: shoal.yaml:5:10 shards.a
  hint: give every part of `shards` a host\
"""),
        ),
        (
            HOSTS + "shards: {a: {master: node5, replicas: [node6]}}\n",
            snapshot("""\
proxy1.shoal is on loopback (127.0.0.1), out of reach for a-1 on node5
  at: shoal.yaml proxy
  hint: give every part of `proxy` a host\
"""),
        ),
        (
            "hosts: {n: 10.0.0.1}\nshards: {a: {master: n}}\nsentinel: {nodes: [n]}\nproxy: {nodes: {p: {host: n}}}\n",
            snapshot("""\
a-1 listens on 10.0.0.1, outside loopback, and there is no password
  at: shoal.yaml:2:14 shards.a.master
  hint: add `auth: {password_file: ./secret}`; or `insecure: true` if everybody in that network may write\
"""),
        ),
        (
            SHARDS + "pools: {x: {listen: '0.0.0.0'}}\n",
            snapshot("""\
proxy1.x listens on 0.0.0.0, outside loopback, and there is no password
  at: shoal.yaml proxy
  hint: add `auth: {password_file: ./secret}`; or `insecure: true` if everybody in that network may write\
"""),
        ),
        (
            SHARDS + "hosts: {local: 10.0.0.1}\n",
            snapshot("""\
"local" always is this machine's loopback
  at: shoal.yaml:2:9 hosts.local
  hint: give the host another name\
"""),
        ),
        (
            SHARDS + "proxy: {nodes: {a-1: {}}}\n",
            snapshot("""\
"a-1" would be the name of two things (see line 1, shards.a)
  at: shoal.yaml:2:17 proxy.nodes.a-1
  hint: rename one of them\
"""),
        ),
        (
            SHARDS + "proxy: {nodes: {sentinel1: {}}}\n",
            snapshot("""\
"sentinel1" would be the name of two things (see sentinel)
  at: shoal.yaml:2:17 proxy.nodes.sentinel1
  hint: rename one of them\
"""),
        ),
        (
            SHARDS + "proxy: {nodes: {p.1: {}}}\n",
            snapshot("""\
the proxy's name "p.1" has a dot
  at: shoal.yaml:2:17 proxy.nodes.p.1
  hint: use "-" instead\
"""),
        ),
        (
            SHARDS + "cluster: stats\n",
            snapshot("""\
a pool cannot be called "stats"
  at: shoal.yaml:2:1 cluster
  hint: the proxies' own ports have that name\
"""),
        ),
        (
            SHARDS + "vip: {address: 10.0.0.9, interface: eth0, owner: node9}\n",
            snapshot("""\
proxy1.shoal listens on 0.0.0.0, outside loopback, and there is no password
  at: shoal.yaml proxy
  hint: add `auth: {password_file: ./secret}`; or `insecure: true` if everybody in that network may write
there is no proxy on host "node9"
  at: shoal.yaml:2:43 vip.owner
  hint: known here: local\
"""),
        ),
        (
            SHARDS + "redis: {port: 1}\n",
            snapshot("""\
"port" is not for `redis:`: each node's endpoint comes from its place in the topology
  at: shoal.yaml:2:9 redis.port\
"""),
        ),
        (
            SHARDS + "redis: {MasterAuth: x, requirepass: x, tls-port: 1, loadmodule: x}\n",
            snapshot("""\
"MasterAuth" is not for `redis:`: passwords come from `auth.password_file`
  at: shoal.yaml:2:9 redis.MasterAuth
"requirepass" is not for `redis:`: passwords come from `auth.password_file`
  at: shoal.yaml:2:24 redis.requirepass
"tls-port" is not for `redis:`: TLS is not supported yet in this release
  at: shoal.yaml:2:40 redis.tls-port
"loadmodule" is not for `redis:`: the server copies it to redis.conf, and must not find it twice
  at: shoal.yaml:2:53 redis.loadmodule\
"""),
        ),
        (
            SHARDS + "redis: {hz: 10, HZ: 20, 'bad name': 1}\n",
            snapshot("""\
"HZ" is given twice (see line 2, redis.hz)
  at: shoal.yaml:2:17 redis.HZ
  hint: give its lines as a list
"bad name" is not the name of a redis.conf directive
  at: shoal.yaml:2:25 redis.bad name\
"""),
        ),
    ],
)
def test_settings_that_contradict_each_other(text: str, message: str) -> None:
    assert refusal(text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "shards: {a: {label: x}, b: {label: x}}\n",
            snapshot("""\
shards "a" and "b" of pool "shoal" have the same label "x" (see line 1, shards.a.label)
  at: shoal.yaml:1:29 shards.b.label
  hint: the ring has one place for a label\
"""),
        ),
        (
            "shards: {a: {label: b}, b: {}}\n",
            snapshot("""\
shards "a" and "b" of pool "shoal" have the same label "b" (see line 1, shards.b)
  at: shoal.yaml:1:14 shards.a.label
  hint: the ring has one place for a label\
"""),
        ),
    ],
)
def test_a_ring_has_one_place_for_a_label(text: str, message: str) -> None:
    assert refusal(text) == message


def test_two_rings_may_have_the_same_label() -> None:
    shards = {"a": {"label": "x"}, "b": {"label": "x"}}
    topology = config.parse({"shards": shards, "pools": {"one": {"shards": ["a"]}, "two": {"shards": ["b"]}}})
    assert topology.labels("two") == {"x": "b"}


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    text = """\
cluster: c
shards:
  a: {replicas: 1, wieght: 2}
  b: {master: "local:7000", replicas: ["nohost:1"]}
  c: {master: "local:7000"}
  d: {master: "local:99999"}
sentinel: {nodes: 3, quorum: 1, down_after: 1}
redis: {port: 1}
proxy:
  hash: fnv
  nodes: {p: {port: 7000}}
"""
    assert refusal(text) == snapshot("""\
unknown key "wieght"
  at: shoal.yaml:3:20 shards.a.wieght
  hint: did you mean "weight"?
there is no host "nohost"
  at: shoal.yaml:4:40 shards.b.replicas[0]
  hint: known here: local
127.0.0.1:7000 is the endpoint of both b-1 and c-1 (see line 4, shards.b.master)
  at: shoal.yaml:5:7 shards.c.master
  hint: give one of them another port
"99999" is not a port: a number from 1 to 65535
  at: shoal.yaml:6:7 shards.d.master
  hint: write it as text: "host:port", for example "node6:6379"
1 is not a duration
  at: shoal.yaml:7:33 sentinel.down_after
  hint: say in which unit: "1ms" or "1s"
"port" is not for `redis:`: each node's endpoint comes from its place in the topology
  at: shoal.yaml:8:9 redis.port
there is no hash "fnv"
  at: shoal.yaml:10:3 proxy.hash
  hint: did you mean "fnv1_64"?\
""")


def test_an_error_in_one_place_brings_no_second_one_about_elsewhere() -> None:
    text = """\
hosts: {node1: 10.0.0.300}
shards: {a: {master: "node1:6379"}, b: {replicas: x}}
pools: {p: {shards: [b]}}
"""
    assert refusal(text) == snapshot("""\
"10.0.0.300" is not an IP address
  at: shoal.yaml:1:9 hosts.node1
  hint: a name is not enough: while it is slow to resolve, Sentinel stops failing over
expected a number from 0 to 1000, or a list of places, got "x"
  at: shoal.yaml:2:41 shards.b.replicas\
""")


# ------------------------------------------------------------------------------------------------------------ password


AUTH = SHARDS + "auth: {password_file: ./secret}\n"


def test_the_password_is_read_from_its_file() -> None:
    secret("hunter2\n")
    Path("shoal.yaml").write_text(AUTH)
    auth = config.load(Path("shoal.yaml")).auth
    assert auth.password is not None
    assert auth.password.get_secret_value() == "hunter2"


def test_the_password_file_is_beside_the_topology_wherever_the_command_runs(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    secret()
    Path("shoal.yaml").write_text(AUTH)
    os.chdir("below")
    assert config.load(tmp_path / "shoal.yaml").auth.enabled


def test_a_password_file_that_is_not_there() -> None:
    assert refusal(AUTH) == snapshot("""\
the password cannot be read: secret: No such file or directory
  at: shoal.yaml:2:8 auth.password_file
  hint: (umask 077; head -c 24 /dev/urandom | base64 > secret)\
""")


def test_a_password_that_everybody_can_read() -> None:
    secret(mode=0o644)
    assert refusal(AUTH) == snapshot("""\
everybody on this machine can read the password: secret has mode 0644
  at: shoal.yaml:2:8 auth.password_file
  hint: chmod 600 secret\
""")


@pytest.mark.parametrize(
    ("password", "message"),
    [
        (
            "\n",
            snapshot("""\
the password is empty
  at: shoal.yaml:2:8 auth.password_file
  hint: a long random word: head -c 24 /dev/urandom | base64\
"""),
        ),
        (
            "two words\n",
            snapshot("""\
the password has a space, a quote or an unprintable character, which a server could not read back
  at: shoal.yaml:2:8 auth.password_file
  hint: use one line of letters, digits and other signs\
"""),
        ),
        (
            "one\ntwo\n",
            snapshot("""\
the password has a space, a quote or an unprintable character, which a server could not read back
  at: shoal.yaml:2:8 auth.password_file
  hint: use one line of letters, digits and other signs\
"""),
        ),
        (
            'quo"te\n',
            snapshot("""\
the password has a space, a quote or an unprintable character, which a server could not read back
  at: shoal.yaml:2:8 auth.password_file
  hint: use one line of letters, digits and other signs\
"""),
        ),
        (
            "x" * 513,
            snapshot("""\
the password is longer than 512 bytes
  at: shoal.yaml:2:8 auth.password_file\
"""),
        ),
        (
            b"\xff\xfe",
            snapshot("""\
the password in secret is not UTF-8 text
  at: shoal.yaml:2:8 auth.password_file\
"""),
        ),
    ],
)
def test_a_password_that_a_server_could_not_read_back(password: str | bytes, message: str) -> None:
    secret(password)
    assert refusal(AUTH) == message


def test_a_password_in_the_topology_itself() -> None:
    message = refusal(SHARDS + "auth: {password: hunter2}\n")
    assert message == snapshot("""\
a password does not belong in the topology
  at: shoal.yaml:2:8 auth.password
  hint: write it to a file of mode 0600, and `password_file: ./secret` here\
""")
    assert "hunter2" not in message


def test_outside_loopback_a_password_is_enough() -> None:
    secret()
    text = AUTH + "pools: {x: {listen: '0.0.0.0:7000'}}\nproxy: {nodes: 1}\n"
    Path("shoal.yaml").write_text(text)
    config.load(Path("shoal.yaml"))


# --------------------------------------------------------------------------------------------------------- what is good


def test_yaml_1_2_has_no_surprises() -> None:
    Path("shoal.yaml").write_text(
        "shards: {1: {}, on: {}, 1.10: {}, 2026-11-22: {}}\nredis: {appendonly: no, hz: 0x0a}\n"
    )
    topology = config.load(Path("shoal.yaml"))
    assert list(topology.shards) == ["1", "on", "1.10", "2026-11-22"]
    assert topology.redis == {"appendonly": ("no",), "hz": ("10",)}


def test_anchors_may_be_used() -> None:
    Path("shoal.yaml").write_text("shards:\n  a: &two {replicas: 2}\n  b: *two\n")
    topology = config.load(Path("shoal.yaml"))
    assert [len(shard.replicas) for shard in topology.shards.values()] == [2, 2]


def test_an_engine_s_path_is_relative_to_the_file(tmp_path: Path) -> None:
    Path("shoal.yaml").write_text(SHARDS + "engine: bin/redis-server\n")
    assert config.load(Path("shoal.yaml")).engine == str(tmp_path / "bin/redis-server")
    Path("shoal.yaml").write_text(SHARDS + "engine: valkey-server\n")
    assert config.load(Path("shoal.yaml")).engine == "valkey-server"


def test_data_is_checked_like_a_file() -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse({"shards": {"a": {"replicsa": 1}}, "proxy": {"hahs": "md5"}})
    assert [str(error) for error in caught.value.each()] == snapshot(
        [
            """\
unknown key "replicsa"
  at: topology shards.a.replicsa
  hint: did you mean "replicas"?\
""",
            """\
unknown key "hahs"
  at: topology proxy.hahs
  hint: did you mean "hash"?\
""",
        ]
    )


@pytest.mark.parametrize("name", ["one-machine", "four-hosts"])
def test_the_examples_are_valid(name: str) -> None:
    assert config.load(EXAMPLES / name / "shoal.yaml").shards


def test_the_four_hosts_are_those_of_the_reference() -> None:
    layout = lay_out(config.load(EXAMPLES / "four-hosts" / "shoal.yaml"), {})
    assert [node.endpoint for node in layout.redis] == [Endpoint(f"10.211.55.{n}", 6379) for n in (6, 5, 7, 8)]
    assert [node.endpoint for node in layout.sentinels] == [Endpoint(f"10.211.55.{n}", 26379) for n in (5, 6, 7)]
    assert [node.reach("redis-cluster") for node in layout.proxies] == [
        Endpoint(f"10.211.55.{n}", 22121) for n in (6, 7)
    ]
