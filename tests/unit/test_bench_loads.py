"""redis-benchmark's report, as version 7.0 writes it, and its arguments."""

from __future__ import annotations

import pytest

from shoal.bench.loads import LOADS, arguments, read_report
from shoal.errors import ProcessError

REPORT = """\
GET: rps=0.0 (overall: 0.0) avg_msec=-nan (overall: -nan)\r\
====== GET ======
  20000 requests completed in 1.40 seconds
  50 parallel clients

Latency by percentile distribution:
0.000% <= 0.192 milliseconds (cumulative count 1)
50.000% <= 1.471 milliseconds (cumulative count 10005)
99.805% <= 13.567 milliseconds (cumulative count 19961)
99.902% <= 15.543 milliseconds (cumulative count 19981)
100.000% <= 22.207 milliseconds (cumulative count 20000)

Cumulative distribution of latencies:
99.890% <= 15.103 milliseconds (cumulative count 19978)
99.985% <= 16.103 milliseconds (cumulative count 19997)

Summary:
  throughput summary: 14245.01 requests per second
  latency summary (msec):
          avg       min       p50       p95       p99       max
        2.229     0.192     1.471     5.999    10.495    22.207
"""


def test_a_report_is_read() -> None:
    assert read_report(REPORT) == {
        "requests_per_second": 14245.01,
        "p50_ms": 1.471,
        "p99_ms": 10.495,
        "p999_ms": 15.543,
    }


def test_a_refused_request_is_an_error_and_no_fast_one() -> None:
    said = "GET: rps=0.0\rError from server: ERR unknown command 'FOO'\n"
    with pytest.raises(ProcessError, match="did not finish") as raised:
        read_report(said)
    assert raised.value.where == "Error from server: ERR unknown command 'FOO'"


def test_values_and_keys_are_those_of_the_load() -> None:
    words = " ".join(arguments(LOADS["set-64k"], 1234, 99))
    assert words == "-p 1234 -n 99 -c 50 -P 1 -r 500 -d 65536 --precision 3 -t set"
    assert arguments(LOADS["mget-10"], 1234, 99)[-11:] == ["MGET", *["key:__rand_int__"] * 10]
