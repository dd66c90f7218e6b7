"""Both rivals on one stage, for the modules that compare them: one pair of processes for all scenes of a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.compat.stage import Theatre

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def theatre(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """A pool for each of the module's SCENES, at each of the rivals."""
    with Theatre(request.module.SCENES, tmp_path_factory.mktemp("theatre")) as both:
        yield both
