"""Each engine's task file. What a key means there is the engine's own documentation: the link stands with each."""

from __future__ import annotations

import base64
import re
import shlex
import textwrap
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path

from backends.plan import Input, Plan
from orchestrator.exporting.program import TooLarge, shell

EMBEDDED = 600_000
"""Bytes of an input that travels inside of a task file, where an engine has no other way for files of this machine: Kubernetes takes
1.5 MB of a document."""
WORD = 96_000
"""Characters of an argument; Linux takes 131,072."""
CARRIED = "/tmp/tune-inputs"  # noqa: S108  # in a container of its own
"""Where such inputs are in the container."""


def skypilot(plan: Plan, memory_gib: float | None) -> str:
    """A task of SkyPilot: `sky launch FILE`. https://docs.skypilot.co/en/latest/reference/yaml-spec.html."""
    mounts = {f"~/tune-inputs/{each.path}": each.source for each in plan.inputs}
    run = shell(plan, {"rank": "SKYPILOT_NODE_RANK", "heads": "SKYPILOT_NODE_IPS"}, dict(zip(_paths(plan), mounts, strict=True)))
    resources: dict[str, object] = {"disk_size": 256}
    if plan.environment.accelerator == "cuda":
        resources["accelerators"] = f"{ceil(memory_gib or 1)}GB+:{plan.devices}"
    task: dict[str, object] = {"name": _name(plan), "num_nodes": plan.hosts, "resources": resources}
    if mounts:
        task["file_mounts"] = mounts
    if plan.secrets:
        task["secrets"] = dict.fromkeys(plan.secrets)
    return _yaml(plan, f"sky launch FILE{_given(plan, ' --secret {}')}", {**task, "run": run})


def dstack(plan: Plan, memory_gib: float | None) -> str:
    """A task of dstack: `dstack apply -f FILE`. https://dstack.ai/docs/reference/dstack.yml/task/."""
    files = [{"local_path": each.source, "path": f"/tune-inputs/{each.path}"} for each in plan.inputs]
    places = {each.path: f"/tune-inputs/{each.path}" for each in plan.inputs}
    run = shell(plan, {"rank": "DSTACK_NODE_RANK", "heads": "DSTACK_NODES_IPS"}, places)
    task: dict[str, object] = {"type": "task", "name": _name(plan), "nodes": plan.hosts, "python": "3.11"}
    if files:
        task["files"] = files
    if plan.secrets:
        task["env"] = list(plan.secrets)
    task["commands"] = [run]
    resources: dict[str, object] = {"disk": "200GB.."}
    if plan.environment.accelerator == "cuda":
        resources["gpu"] = {"count": plan.devices, **({"memory": f"{ceil(memory_gib)}GB.."} if memory_gib else {})}
    return _yaml(plan, "dstack apply -f FILE", {**task, "resources": resources})


def kubeflow(plan: Plan, memory_gib: float | None) -> str:  # noqa: ARG001  # Kubernetes has no such resource
    """A TrainJob of Kubeflow Trainer: `kubectl apply -f FILE`. https://www.kubeflow.org/docs/components/trainer/."""
    carried, words = _embedded(plan.inputs)
    places = {each.path: f"{CARRIED}/{each.path}" for each in plan.inputs}
    run = shell(plan, {"rank": "PET_NODE_RANK", "heads": "PET_MASTER_ADDR"}, places)
    trainer: dict[str, object] = {"numNodes": plan.hosts, "command": ["/bin/sh", "-c", carried + run, "tune"]}
    if words:
        trainer["args"] = words
    if plan.environment.accelerator == "cuda":
        trainer["resourcesPerNode"] = {"limits": {"nvidia.com/gpu": plan.devices}, "requests": {"nvidia.com/gpu": plan.devices}}
    if plan.secrets:
        trainer["env"] = [{"name": name, "valueFrom": {"secretKeyRef": {"name": "tune", "key": name}}} for name in plan.secrets]
    job: dict[str, object] = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": _name(plan)},
        "spec": {"runtimeRef": {"name": "torch-distributed"}, "trainer": trainer},
    }
    given = _given(plan, " --from-literal={0}=...")
    before = f"kubectl create secret generic tune{given} && " if given else ""
    return _yaml(plan, f"{before}kubectl apply -f FILE", job)


def slurm(plan: Plan, memory_gib: float | None) -> str:  # noqa: ARG001  # sites name their GPUs otherwise
    """A batch script of Slurm: `sbatch FILE`, where the inputs lie on a disk of all nodes. https://slurm.schedmd.com/sbatch.html."""
    run = shell(plan, {"rank": "SLURM_NODEID", "heads": "TUNE_NODES"}, {each.path: each.source for each in plan.inputs})
    options = [f"--job-name={_name(plan)}", f"--nodes={plan.hosts}", "--ntasks-per-node=1", f"--output={_name(plan)}-%j.log"]
    if plan.environment.accelerator == "cuda":
        options.append(f"--gpus-per-node={plan.devices}")
    head = "".join(f"#SBATCH {each}\n" for each in options)
    # each node writes into a folder of its own: the state folder may be one for all of them
    nodes = 'TUNE_NODES=$(scontrol show hostnames "$SLURM_JOB_NODELIST"); export TUNE_NODES\n'
    each = "TUNE_TASK_FOLDER=${TUNE_TASK_FOLDER:-$SLURM_SUBMIT_DIR/tune-$SLURM_JOB_ID}/$SLURM_NODEID; export TUNE_TASK_FOLDER\n"
    script = f"srun --kill-on-bad-exit=1 /bin/sh <<'END_OF_NODE'\n{each}{run}END_OF_NODE\n"
    return f"#!/bin/sh\n{_comment(plan, 'sbatch FILE')}{head}set -e\n{nodes}{script}"


ENGINES: Mapping[str, Callable[[Plan, float | None], str]] = {
    "skypilot": skypilot,
    "dstack": dstack,
    "kubeflow": kubeflow,
    "slurm": slurm,
}
"""Name -> its task file, of a plan and the memory in GiB that a device is to have, where that is known."""


def _paths(plan: Plan) -> list[str]:
    return [each.path for each in plan.inputs]


def _name(plan: Plan) -> str:
    """A name that all of them take: of Kubernetes' DNS labels, and dstack's 41 characters."""
    return re.sub(r"[^a-z0-9]+", "-", plan.recipe.lower()).strip("-")[:40].strip("-") or "tune"


def _embedded(inputs: Sequence[Input]) -> tuple[str, list[str]]:
    """Shell lines that write inputs of this machine inside of the container, and the arguments that they are made from.

    Raises:
        TooLarge: one cannot travel so.
    """
    lines, words = "", list[str]()
    for each in inputs:
        source, target = Path(each.source), f"{CARRIED}/{each.path}"
        if not source.is_file() or source.stat().st_size > EMBEDDED:
            hint = "put it on a volume of the cluster, or name data and model by their ids of the hub"
            raise TooLarge(f"{source}: a TrainJob carries single files of {EMBEDDED} bytes at most: {hint}")
        pieces = textwrap.wrap(base64.b64encode(source.read_bytes()).decode(), WORD)
        given = "".join(f"${{{len(words) + number}}}" for number in range(1, len(pieces) + 1))
        words += pieces
        lines += f'mkdir -p {shlex.quote(str(Path(target).parent))}\nprintf %s "{given}" | base64 -d >{shlex.quote(target)}\n'
    return lines, words


def _given(plan: Plan, form: str) -> str:
    """Words of a command that give secrets."""
    return "".join(form.format(name) for name in plan.secrets)


def _comment(plan: Plan, command: str) -> str:
    what = f"{plan.recipe} by {plan.backend}, plan {plan.digest()[:12]}"
    return f"# {what}, written by tune translate. Run it: {command}\n"


def _yaml(plan: Plan, command: str, task: Mapping[str, object]) -> str:
    """A YAML document, with texts of several lines as they are."""
    import yaml  # noqa: PLC0415  # 15 ms, for those who export

    class Dumper(yaml.SafeDumper):
        """Writes texts of several lines as blocks."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return _comment(plan, command) + yaml.dump(dict(task), Dumper=Dumper, sort_keys=False, width=10_000, allow_unicode=True)
