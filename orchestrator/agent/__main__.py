"""The agent as a program: `python3 -I FOLDER/orchestrator/agent COMMAND ...`, wherever FOLDER was copied to.

provision ENVS NAME LOCKFILE ...    make a trainer's environment: see `provision`
allocation FOLDER                   run an attempt inside an allocation of Slurm: see `allocation`
start | status | stop | ...         supervise attempts: see `runner`
"""

import os
import sys

# Python puts the folder that it was told to run here, also where it is isolated; ours are packages of the folder above
sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

if __name__ == "__main__":
    if sys.argv[1:2] == ["provision"]:
        from orchestrator.agent import provision

        sys.exit(provision.main(sys.argv[2:]))
    if sys.argv[1:2] == ["allocation"]:
        from orchestrator.agent import allocation

        sys.exit(allocation.main(sys.argv[2:]))
    from orchestrator.agent import runner

    os._exit(runner.main(sys.argv[1:]))  # nothing is left to tidy up, which would take 2 ms
