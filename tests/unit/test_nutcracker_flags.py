"""nutcracker's flags: what getopt_long takes is taken, and what is wrong is said in nutcracker's words."""

from __future__ import annotations

import pytest

from shoal.errors import ConfigError
from shoal.nutcracker.flags import FLAGS, parse_flags
from shoal.topology import Endpoint


def test_without_flags_the_defaults_hold() -> None:
    flags = parse_flags([])
    assert {name: getattr(flags, flag.attribute) for name, flag in FLAGS.items()} == {
        name: flag.default for name, flag in FLAGS.items()
    }
    assert flags.given == frozenset()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["-hVtdD"], {"help": True, "version": True, "test_conf": True, "daemonize": True, "describe_stats": True}),
        (["-c", "a.yml", "-tp", "x.pid"], {"conf_file": "a.yml", "test_conf": True, "pid_file": "x.pid"}),
        (["-tca.yml"], {"conf_file": "a.yml", "test_conf": True}),
        (["--conf=a.yml", "--test"], {"conf_file": "a.yml", "test_conf": True}),
        (["--conf-file", "a.yml"], {"conf_file": "a.yml"}),
        (["--conf-file="], {"conf_file": ""}),
        (["extra", "-t", "more", "--", "-Z"], {"test_conf": True}),
        (["-v", "0"], {"verbose": 0}),
        (["-v011"], {"verbose": 11}),
        (["-v", "99999999999999999999"], {"verbose": 11}),
        (["-v", "3", "-v", "4"], {"verbose": 4}),
        (["--stats-p=1"], {"stats_port": 1}),
        (["-s", "65535", "-a", "127.0.0.1", "-i", "0"], {"stats_port": 65535, "stats_addr": "127.0.0.1"}),
        (["-m", "512"], {"mbuf_size": 512}),
        (["-m", "16777216"], {"mbuf_size": 16777216}),
        (["-o", ""], {"output": ""}),
        (["--admin=127.0.0.1:22180"], {"admin": Endpoint("127.0.0.1", 22180)}),
        (["--adm", "[::1]:1"], {"admin": Endpoint("::1", 1)}),
        (["--workers", "4"], {"workers": 4}),
    ],
)
def test_what_is_taken(argv: list[str], expected: dict[str, object]) -> None:
    flags = parse_flags(argv)
    assert {name: getattr(flags, name) for name in expected} == expected
    assert {name.replace("_", "-") for name in expected} <= flags.given


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-Z"], "invalid option -- 'Z'"),
        (["-tZ"], "invalid option -- 'Z'"),
        (["-?"], "invalid option -- '?'"),
        (["-v"], "option -v requires a number"),
        (["--verbose"], "option -v requires a number"),
        (["--verb"], "option -v requires a number"),
        (["-v", "x"], "option -v requires a number"),
        (["-v", "-1"], "option -v requires a number"),
        (["-v", ""], "option -v requires a number"),
        (["-v=5"], "option -v requires a number"),
        (["-s"], "option -s requires a number"),
        (["-s", "x"], "option -s requires a number"),
        (["-s", "0"], "option -s value 0 is not a valid port"),
        (["-s", "65536"], "option -s value 65536 is not a valid port"),
        (["-i", "x"], "option -i requires a number"),
        (["-i", "4294967296"], "option -i requires a number"),
        (["-m"], "option -m requires a number"),
        (["-m", "0"], "option -m requires a non-zero number"),
        (["-m", "1e3"], "option -m requires a non-zero number"),
        (["-m", "511"], "mbuf chunk size must be between 512 and 16777216 bytes"),
        (["-m", "16777217"], "mbuf chunk size must be between 512 and 16777216 bytes"),
        (["-o"], "option -o requires a file name"),
        (["--output"], "option -o requires a file name"),
        (["-c"], "option -c requires a file name"),
        (["-p"], "option -p requires a file name"),
        (["-a"], "option -a requires a string"),
        (["--help=x"], "invalid option -- 'h'"),
        (["--admin=22180"], "option --admin requires an address and a port"),
        (["--admin"], "option --admin requires an address and a port"),
        (["--workers=0"], "option --workers requires a number from 1 to 256"),
        (["--workers=257"], "option --workers requires a number from 1 to 256"),
        (["-h", "-Z"], "invalid option -- 'Z'"),
        (["-s", "0", "-Z"], "option -s value 0 is not a valid port"),
        (["-Z", "-s", "0"], "invalid option -- 'Z'"),
        (["-m", "1", "-c"], "mbuf chunk size must be between 512 and 16777216 bytes"),
    ],
)
def test_what_is_refused_in_nutcracker_s_words(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_flags(argv)
    assert caught.value.what == message


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("--stats=3", "it may be --stats-port or --stats-addr or --stats-interval"),
        ("--v=3", "it may be --version or --verbose"),
        ("--config=a", "did you mean --conf-file?"),
        ("--xyzzy", None),
    ],
)
def test_a_long_option_that_is_unknown_or_unclear(argument: str, hint: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_flags([argument])
    assert caught.value.what == f"invalid option -- '{argument[2:].partition('=')[0]}'"
    assert caught.value.hint == hint


def test_no_flag_of_ours_makes_a_short_form_of_theirs_unclear() -> None:
    ours = [flag.long for flag in FLAGS.values() if not flag.short]
    theirs = [flag.long for flag in FLAGS.values() if flag.short]
    assert ours == ["admin", "workers"]
    assert not {name[0] for name in ours} & {name[0] for name in theirs}
