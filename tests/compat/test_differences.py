"""The table of differences stands for what the scenes see, and for nothing else."""

from __future__ import annotations

from tests.compat import (
    test_clients_like_nutcracker,
    test_ejection_like_nutcracker,
    test_failures_like_nutcracker,
    test_settings_like_nutcracker,
)
from tests.compat.differences import DIFFERENCES, known_of

MODULES = (
    test_clients_like_nutcracker,
    test_ejection_like_nutcracker,
    test_failures_like_nutcracker,
    test_settings_like_nutcracker,
)


def test_each_scene_has_a_name_of_its_own_and_each_difference_a_scene() -> None:
    names = [name for module in MODULES for name in module.SCENES]
    assert len(set(names)) == len(names)
    assert DIFFERENCES.keys() <= set(names)


def test_what_differs_differs_for_one_reason() -> None:
    for scene, differences in DIFFERENCES.items():
        assert sum(len(difference.seen) for difference in differences) == len(known_of(scene)), scene
        assert all(theirs != ours for theirs, ours in known_of(scene).values()), scene
