"""Which setting is tried next."""

from itertools import product

import pytest

from orchestrator.verification import next_choice

AXES = {"compile": (False, True), "micro": (1, 2, 4, 8), "recompute": (False, True)}
GRID = list(product(*AXES.values()))


def sought(start, speed, fits=lambda _: True):
    """What is tried until nothing is left, and the fastest of it."""
    speeds = {}
    while (choice := next_choice(AXES, start, speeds, fits)) is not None:
        assert choice not in speeds
        speeds[choice] = speed(choice)
    known = {choice: found for choice, found in speeds.items() if found is not None}
    return speeds, max(known, key=known.get, default=None)


def plain(choice):
    """Compiled is faster, larger batches are, recomputing is not."""
    compiled, micro, recomputed = choice
    return (1.7 if compiled else 1.0) * micro**0.3 * (0.8 if recomputed else 1.0)


@pytest.mark.parametrize("start", GRID)
def test_the_best_of_a_grid_from_everywhere(start):
    """Wherever it starts, the fastest is the whole grid's, in fewer trials than that."""
    speeds, best = sought(start, plain)
    assert best == max(GRID, key=plain) == (True, 8, False)
    assert len(speeds) < len(GRID)
    assert next(iter(speeds)) == start


@pytest.mark.parametrize("start", GRID)
def test_nothing_that_does_not_fit_is_tried(start):
    """Eight rows fit when recomputed only, four when compiled or recomputed: the best of what fits is found all the same."""

    def fits(choice):
        compiled, micro, recomputed = choice
        return recomputed or micro <= (4 if compiled else 2)

    def speed(choice):
        return 3 * choice[1] ** 0.9 * (0.7 if choice[2] else 1) * (1.2 if choice[0] else 1) if fits(choice) else None

    speeds, best = sought(start, speed, fits)
    assert best == max(filter(fits, GRID), key=speed) == (True, 8, True)
    assert all(fits(choice) for choice in speeds if choice != start)


def test_what_failed_leads_on():
    """A choice that ran out of memory is not the best, and its own neighbours are looked at: recomputed it may fit."""
    _, best = sought((False, 4, False), lambda choice: None if choice[1] == 8 and not choice[2] else choice[1] * 1.0)
    assert best[1:] == (8, True)


def test_all_fail():
    """Where nothing trains there is no best, and the search ends."""
    speeds, best = sought((True, 8, False), lambda _: None)
    assert best is None
    assert len(speeds) < len(GRID)
