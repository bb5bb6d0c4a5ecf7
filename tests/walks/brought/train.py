"""A training of a user's own, which takes no time: the loss falls by the learning rate; above 1 it breaks."""

import sys
from pathlib import Path

steps, rate = int(sys.argv[1]), float(sys.argv[2])
for step in range(steps):
    print("step", step + 1, "loss", round(3 - rate * step, 3))
if rate > 1:
    raise SystemExit("ValueError: the rate is above 1")
Path("weight.json").write_text("1")
