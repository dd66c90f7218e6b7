"""What a nutcracker.yml comes to as a topology: what is carried over, what is assumed, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from shoal import config, document
from shoal.census import Group, Known, Settings
from shoal.conversion import CARRIED_OVER, WITHOUT_EQUIVALENT, Material, as_name, convert
from shoal.draft import Draft, DraftPool, DraftProxy, DraftSentinels, DraftShard, text
from shoal.errors import ConfigError
from shoal.nutcracker import parse
from shoal.nutcracker.keys import KEYS
from shoal.topology import Endpoint, Topology, ports_to_choose

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ADDRESSES = {"redis1": ["fd00::1", "10.0.0.1"], "localhost": ["::1", "127.0.0.1"], "local": ["10.0.0.9"]}
SENTINELS = tuple(Endpoint(f"10.0.1.{n}", 26379) for n in (1, 2, 3))
A = Group(
    name="a",
    master=Endpoint("10.0.0.1", 6379),
    replicas=(Endpoint("10.0.0.2", 6379),),
    down=frozenset(),
    settings=Settings(2, 5000, 60000, 1),
    sentinels=SENTINELS,
    said_by=SENTINELS,
)
B = replace(A, name="b", master=Endpoint("10.0.0.3", 6379), replicas=())


def resolve(host: str) -> Sequence[str]:
    return ADDRESSES.get(host, ())


def pool(name: str, *servers: str, **settings: str) -> str:
    given = {"listen": "0.0.0.0:22121", "redis": "true", **settings}
    lines = [f"{name}:", *(f"  {key}: {value}" for key, value in given.items()), "  servers:"]
    return "\n".join([*lines, *(f"    - {server}" for server in servers)]) + "\n"


def material(source: str, **given: Any) -> Material:
    options: dict[str, Any] = {"resolve": resolve, "here": lambda _towards: "10.0.0.7", **given}
    return Material("n.yml", parse(source, "n.yml").pools, **options)


def converted(source: str, **given: Any) -> Draft:
    return convert(material(source, **given))


def watched(source: str, *groups: Group, ties: Mapping[str, str], silent: Mapping[Endpoint, str] = {}) -> Draft:
    given = material(source)
    known = Known((*SENTINELS, *silent), {group.name: group for group in groups}, silent)
    names = [pool.name for pool in given.pools]
    return convert(replace(given, known=dict.fromkeys(names, known), ties=dict.fromkeys(names, ties)))


def read(draft: Draft) -> Topology:
    """What the draft's text means."""
    data = document.read(text(draft), "shoal.yaml").data
    if draft.password_file is not None:
        data["auth"]["password"] = "secret"
    return config.parse(data)


def refusal(source: str, **given: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        converted(source, **given)
    return str(caught.value)


TWO = pool("p", "10.0.0.1:6379:1", "10.0.0.3:6379:1")
TIES = {"10.0.0.1:6379": "a", "10.0.0.3:6379": "b"}


def test_every_key_of_the_file_is_carried_over_or_said_to_be_left_out() -> None:
    assert set(KEYS) == CARRIED_OVER | WITHOUT_EQUIVALENT.keys()
    assert not CARRIED_OVER & WITHOUT_EQUIVALENT.keys()


def test_settings_of_a_pool_are_carried_over() -> None:
    draft = converted(
        pool(
            "p",
            "10.0.0.1:6379:3 x",
            hash="murmur",
            hash_tag='"{}"',
            distribution="modula",
            timeout="400",
            client_connections="99",
        )
    )
    topology = read(draft)
    spec = topology.pools["p"]
    assert (topology.cluster, spec.listen) == ("p", "0.0.0.0:22121")
    assert (spec.hash, spec.hash_tag, spec.distribution) == ("murmur", "{}", "modula")
    assert (spec.timeout, spec.client_connections) == (400, 99)
    assert topology.shards["x"].weight == 3


def test_what_is_left_out_is_told_with_what_holds_instead() -> None:
    draft = converted(
        pool(
            "p",
            "10.0.0.1:6379:1",
            listen="/run/p.sock 0660",
            auto_eject_hosts="true",
            redis_db="3",
            backlog="512",  # the default is nothing to tell
        )
    )
    assert draft.left_out == snapshot(
        (
            "p.auto_eject_hosts: true: no shard leaves the ring: its requests wait for the failover",
            "p.listen: /run/p.sock: a proxy listens on a port, here on 22121",
        )
    )
    assert (read(draft).pools["p"].listen, read(draft).pools["p"].database) == ("22121", 3)


def test_pools_on_unix_sockets_get_ports_that_no_other_has() -> None:
    sockets = "".join(pool(name, "10.0.0.1:6379:1", listen=f"/run/{name}.sock") for name in ("a", "b"))
    draft = converted(sockets + pool("c", "10.0.0.1:6379:1", listen="127.0.0.1:22121"))
    assert [one.listen for one in draft.pools] == ["22122", "22123", "127.0.0.1:22121"]
    read(draft)


def test_a_proxy_on_loopback_can_run_without_shoal_up() -> None:
    group = replace(A, master=Endpoint("127.0.0.1", 6379), replicas=(), sentinels=(Endpoint("127.0.0.1", 26379),))
    draft = watched(pool("p", "127.0.0.1:6379:1", listen="127.0.0.1:22121"), group, ties={"127.0.0.1:6379": "a"})
    assert draft.proxies == (DraftProxy("local", 22180, 22222),)
    assert ports_to_choose(read(draft)) == ()


# ---------------------------------------------------------------------------------------------------- with sentinels


def test_sentinels_give_names_servers_and_settings() -> None:
    draft = watched(TWO, A, B, ties=TIES)
    assert draft.shards == (
        DraftShard("a", "10.0.0.1:6379", 1, "10.0.0.1:6379", ("10.0.0.2:6379",)),
        DraftShard("b", "10.0.0.3:6379", 1, "10.0.0.3:6379"),
    )
    topology = read(draft)
    assert [str(node) for node in topology.sentinel.nodes] == [str(at) for at in SENTINELS]
    assert topology.sentinel.quorum == 2
    assert (topology.sentinel.down_after, topology.sentinel.failover_timeout) == (5000, 60000)
    assert draft.assumed == snapshot(("one proxy, on 10.0.0.7; say where they run with --proxy HOST",))


def test_a_label_stays_when_the_master_has_moved() -> None:
    after = replace(A, master=A.replicas[0], replicas=(A.master,))
    draft = watched(pool("p", "10.0.0.1:6379:1"), after, ties={"10.0.0.1:6379": "a"})
    assert draft.shards == (DraftShard("a", "10.0.0.1:6379", 1, "10.0.0.2:6379", ("10.0.0.1:6379",)),)
    assert read(draft).labels("p") == {"10.0.0.1:6379": "a"}


def test_an_alias_that_is_the_master_s_name_needs_no_label() -> None:
    draft = watched(pool("p", "10.0.0.1:6379:1 a", "/run/b.sock:1 server2"), A, B, ties={"a": "a", "server2": "b"})
    assert [shard.label for shard in draft.shards] == [None, "server2"]


def test_names_that_sentinels_announce_become_hosts() -> None:
    named = replace(A, master=Endpoint("redis1", 6379), sentinels=(Endpoint("redis1", 26379), *SENTINELS[1:]))
    draft = watched(pool("p", "10.0.0.1:6379:1"), named, ties={"10.0.0.1:6379": "a"})
    assert draft.hosts == {"redis1": "10.0.0.1"}, "IPv4 if there is one"
    assert (draft.shards[0].master, draft.proxies) == ("redis1:6379", (DraftProxy("10.0.0.7"),))
    assert isinstance(draft.sentinels.nodes, tuple)
    assert draft.sentinels.nodes[0] == "redis1:26379"
    read(draft)


def test_what_sentinels_disagree_about_is_told() -> None:
    draft = watched(
        TWO,
        replace(A, disagreements=("quorum is 2 at x, 3 at y",), down=frozenset(A.replicas)),
        replace(B, settings=Settings(2, 7000, 60000, 1)),
        ties=TIES,
        silent={Endpoint("10.0.1.9", 26379): "no answer in time"},
    )
    assert draft.assumed[:-1] == snapshot(
        (
            'the sentinels disagree about "a": quorum is 2 at x, 3 at y',
            '10.0.0.2:6379 is a replica of "a", though it is down',
            "10.0.1.9:26379 is left out: it did not answer (no answer in time), and no other sentinel knows it",
            'down_after is 7000 for all; the sentinels have 5000 for "a", 7000 for "b"',
        )
    )


def test_a_silent_sentinel_that_the_others_know_is_not_worth_a_word() -> None:
    draft = watched(TWO, A, B, ties=TIES, silent={SENTINELS[2]: "no answer in time"})
    assert len(draft.assumed) == 1
    assert str(SENTINELS[2]) in str(draft.sentinels.nodes)


def test_a_quorum_that_is_no_majority_is_not_carried_over() -> None:
    low = replace(A, settings=A.settings._replace(quorum=1))
    draft = watched(pool("p", "10.0.0.1:6379:1"), low, ties={"10.0.0.1:6379": "a"})
    assert draft.assumed[0] == snapshot(
        "the quorum is 2, a majority of 3 sentinels; at the sentinels it is 1, to be changed with `SENTINEL SET`"
    )
    assert read(draft).sentinel.quorum == 2


def test_settings_that_are_too_small_for_a_topology_are_raised() -> None:
    hasty = replace(A, settings=Settings(2, 10, 20, 1))
    sentinel = read(watched(pool("p", "10.0.0.1:6379:1"), hasty, ties={"10.0.0.1:6379": "a"})).sentinel
    assert (sentinel.down_after, sentinel.failover_timeout) == (100, 1000)


def test_two_sets_of_sentinels_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        watched(TWO, A, replace(B, sentinels=SENTINELS[:2]), ties=TIES)
    assert str(caught.value) == snapshot("""\
"a" is watched by 10.0.1.1:26379, 10.0.1.2:26379, 10.0.1.3:26379, but "b" by 10.0.1.1:26379, 10.0.1.2:26379
  at: n.yml
  hint: a topology has one set of sentinels: write a file for each set, with --pool""")


def test_a_master_whose_name_no_shard_can_have_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        watched(pool("p", "10.0.0.1:6379:1"), replace(A, name=".a"), ties={"10.0.0.1:6379": ".a"})
    assert str(caught.value) == snapshot("""\
".a", as Sentinel calls the master of server "10.0.0.1:6379", cannot be a shard's name
  at: n.yml:5 p.servers
  hint: at most 63 characters, and neither . nor - first""")


# ------------------------------------------------------------------------------------------------- without sentinels


def test_without_sentinels_shards_get_names_and_sentinels_places() -> None:
    draft = converted(TWO, proxies=("10.0.0.1", "redis1"))
    assert [(shard.name, shard.label, shard.replicas) for shard in draft.shards] == [
        ("shard1", "10.0.0.1:6379", ()),
        ("shard2", "10.0.0.3:6379", ()),
    ]
    assert draft.proxies == (DraftProxy("10.0.0.1"), DraftProxy("redis1"))
    assert draft.sentinels.nodes == ("10.0.0.1:26379", "redis1:26379", "10.0.0.3:26379")
    assert not draft.watched
    assert draft.insecure
    assert draft.assumed == snapshot(
        (
            "the sentinels are to be at 10.0.0.1:26379, redis1:26379, 10.0.0.3:26379",
            "every server is a master, and its replicas are not known, as no sentinel was asked",
            "the sentinels will know the masters by the names of the shards",
        )
    )


def test_with_few_machines_one_has_two_sentinels() -> None:
    draft = converted(pool("p", "10.0.0.1:6379:1"), proxies=("10.0.0.1",))
    assert draft.sentinels.nodes == ("10.0.0.1:26379", "10.0.0.1:26380", "10.0.0.1:26381")
    read(draft)


def test_all_on_this_machine() -> None:
    draft = converted(pool("p", "localhost:6379:1", listen="127.0.0.1:22121"))
    assert (draft.proxies[0].host, draft.sentinels.nodes, draft.insecure) == ("local", 3, False)
    assert draft.shards[0].master == "127.0.0.1:6379"
    read(draft)


@pytest.mark.parametrize(
    ("listen", "given", "proxies", "listens"),
    [
        ("10.0.0.5:22121", {}, ("10.0.0.5",), "10.0.0.5:22121"),
        ("0.0.0.0:22121", {}, ("10.0.0.7",), "0.0.0.0:22121"),
        ("0.0.0.0:22121", {"here": lambda _: None}, ("10.0.0.1",), "0.0.0.0:22121"),
        ("127.0.0.1:22121", {}, ("10.0.0.7",), "127.0.0.1:22121"),
        ("localhost:22121", {}, ("10.0.0.7",), "127.0.0.1:22121"),
        ("10.0.0.5:22121", {"proxies": ("10.0.0.5", "10.0.0.6")}, ("10.0.0.5", "10.0.0.6"), "22121"),
        ("0.0.0.0:22121", {"proxies": ("10.0.0.5", "10.0.0.6")}, ("10.0.0.5", "10.0.0.6"), "0.0.0.0:22121"),
    ],
)
def test_where_proxies_run_and_listen(
    listen: str, given: Mapping[str, Any], proxies: tuple[str, ...], listens: str
) -> None:
    draft = converted(pool("p", "10.0.0.1:6379:1", listen=listen), **given)
    assert (tuple(proxy.host for proxy in draft.proxies), draft.pools[0].listen) == (proxies, listens)
    read(draft)


def test_a_host_is_called_by_its_name_unless_that_means_something_else() -> None:
    draft = converted(pool("p", "redis1:6379:1", "local:6379:1"))
    assert draft.hosts == {"redis1": "10.0.0.1"}
    assert [shard.master for shard in draft.shards] == ["10.0.0.9:6379", "redis1:6379"]
    read(draft)


def test_what_no_topology_can_say_is_refused_all_at_once() -> None:
    source = pool("p", "/run/a.sock:1 a", "nobody:6379:1")
    assert refusal(source) == snapshot("""\
2 problems in the conversion
/run/a.sock is a unix socket, and a shard of a shoal.yaml has an address
  at: n.yml:5 p.servers
  hint: give the server's address, or ask its sentinels with --sentinel
the host of nobody:6379 has no address now, and a shoal.yaml names each host's address
  at: n.yml:6 p.servers
  hint: see that the name server knows it, or write its address""")
    assert 'the host "nobody" to listen on has no address now' in refusal(
        pool("p", "10.0.0.1:6379:1", listen="nobody:22121")
    )


# ----------------------------------------------------------------------------------------------------- several pools


def test_pools_that_share_servers_share_shards() -> None:
    source = pool("p", "10.0.0.1:6379:1 x", "10.0.0.3:6379:1 y") + pool("q", "10.0.0.1:6379:1 x", listen="0.0.0.0:2")
    draft = converted(source)
    assert [shard.name for shard in draft.shards] == ["x", "y"]
    assert [one.shards for one in draft.pools] == [("x", "y"), ("x",)]
    assert draft.cluster == "shoal"
    topology = read(draft)
    assert topology.labels("q") == {"x": "x"}


def test_the_same_label_in_two_pools_may_be_two_shards() -> None:
    source = pool("p", "10.0.0.1:6379:1 x") + pool("q", "10.0.0.3:6379:1 x", listen="0.0.0.0:2")
    draft = converted(source)
    assert [(shard.name, shard.label) for shard in draft.shards] == [("x", None), ("q-x", "x")]
    assert read(draft).labels("q") == {"x": "q-x"}


def test_a_shard_of_two_labels_or_weights_is_refused() -> None:
    source = pool("p", "10.0.0.1:6379:1 x") + pool("q", "10.0.0.1:6379:2", listen="0.0.0.0:2")
    assert refusal(source) == snapshot("""\
shard "x" is "x" with weight 1 in pool "p", but "10.0.0.1:6379" with weight 2 in pool "q"
  at: n.yml:10 q.servers
  hint: a shard has one label and one weight: write a file for each pool, with --pool""")


def test_names_of_pools_that_a_topology_cannot_have() -> None:
    source = "".join(
        pool(name, "10.0.0.1:6379:1", listen=f"0.0.0.0:{port}") for port, name in enumerate(("a b", "a%b", "stats"), 1)
    )
    draft = converted(source)
    assert [one.name for one in draft.pools] == ["a-b", "a-b-2", "stats-pool"]
    assert 'pool "a%b" is called "a-b-2"' in draft.assumed
    read(draft)
    assert as_name("-…") == "pool"


# ---------------------------------------------------------------------------------------------------------- the text

LABELS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(str.isprintable)


@given(
    labels=st.lists(LABELS, min_size=1, max_size=4, unique=True),
    assumed=st.lists(st.text(), max_size=3),
    tag=st.none() | st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=2, max_size=2),
    origin=st.text(),
)
def test_whatever_a_draft_holds_is_read_back_from_its_text(
    labels: list[str], assumed: list[str], tag: str | None, origin: str
) -> None:
    shards = tuple(DraftShard(f"shard{at}", label, 1 + at, f"127.0.0.1:{7000 + at}") for at, label in enumerate(labels))
    names = tuple(shard.name for shard in shards)
    pools = tuple(
        DraftPool(
            name, f"127.0.0.1:{8000 + at}", names, "md5", "modula", tag, timeout=1, client_connections=1, database=2
        )
        for at, name in enumerate(("no", "7"))
    )
    draft = Draft(
        origin,
        "null",
        shards,
        DraftSentinels(3),
        pools,
        (DraftProxy("local"),),
        assumed=tuple(assumed),
        password_file="- x: #",
    )
    topology = read(draft)
    assert topology.cluster == "null"
    assert topology.auth.password_file == "- x: #"
    assert {topology.label(name): topology.shards[name].weight for name in names} == {
        label: 1 + at for at, label in enumerate(labels)
    }
    assert [pool.hash_tag for pool in topology.pools.values()] == [tag, tag]
