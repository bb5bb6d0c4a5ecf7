"""Which worker runs which file: those that train in few workers at once, beside those that mostly wait."""

import os

from xdist.scheduler import LoadFileScheduling

TRAINING = ("tests/conformance/", "tests/families/", "tests/truth/")
"""Rooms whose tests keep a core busy, most of them for minutes."""


def following(files, training, cores):
    """The file that a worker gets next: the first that trains, unless as many other workers train as there are cores; then the first
    that does not. Where one kind has run out it is of the other.

    Args:
        files: what nobody has yet, in its order; at least one.
        training: how many other workers have a file that trains.
        cores: of this machine.
    """
    return next((file for file in files if file.startswith(TRAINING) is (training < cores)), files[0])


class Distribution(LoadFileScheduling):
    """Whole files, as `--dist=loadfile`. On a new machine those that train wait for their environments, and the others go on."""

    def _assign_work_unit(self, node):
        others = (units for other, units in self.assigned_work.items() if other is not node)
        left = ([file for file, unit in units.items() if not all(unit.values())] for units in others)
        training = sum(any(file.startswith(TRAINING) for file in files) for files in left)
        chosen = following(list(self.workqueue), training, len(os.sched_getaffinity(0)))
        self.workqueue.move_to_end(chosen, last=False)
        super()._assign_work_unit(node)
