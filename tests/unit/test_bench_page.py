"""The page: everything in one file, with a plot of each goal's figure."""

from __future__ import annotations

import re

from shoal.bench.figures import Mode, Series
from shoal.bench.goals import judge
from shoal.bench.page import page
from shoal.bench.run import Results

SERIES = Series(
    "burst",
    Mode.UNPINNED,
    {"shoal": [{"peak_mb": 10.0, "later_mb": -0.1}], "nutcracker": [{"peak_mb": 200.0, "later_mb": 200.0}]},
)


def test_the_page_shows_verdicts_samples_and_the_machine_and_loads_nothing() -> None:
    results = Results({"kernel": "6.1 <test>"}, {"nutcracker": "0.5.0"}, 0, [SERIES])
    text = page(results, list(judge([SERIES])), {"burst": "a burst"})
    assert "<td>met</td>" in text
    assert "6.1 &lt;test&gt;" in text
    assert len(re.findall("<svg", text)) == 2
    assert len(re.findall('class="dot"', text)) == 4
    assert 'width="-' not in text  # memory given back is a bar of no length
    assert not re.search(r"https?://|<script|<link", text)
