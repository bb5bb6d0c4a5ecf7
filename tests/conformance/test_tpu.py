"""MaxText on slices of two and four workers, one process each, as on TPUs but that JAX computes on CPUs: workers are hosts over real
sshd. A slice is one that the API names, one that it makes and takes, or a list of addresses.
"""

import json
from contextlib import ExitStack

import pytest

from orchestrator.executors.tpu.api import OVERRIDE
from tests.hosts.lab import laboratory, missing
from tests.hosts.tpu import PROJECT, ZONE, cloud, service_account
from tests.processes import CONTROLLER, kill_all, pids_of
from tests.waiting import until

from .test_main_job import curve

pytestmark = [pytest.mark.trainer, pytest.mark.thorough(3)]

PREEMPTIONS, STEPS, EVERY = 5, 1000, 25
LONG = 1800
"""Seconds that four processes of MaxText may take on two cores, twice."""
RECIPE = {
    "version": 1,
    "name": "slice",
    "model": {
        "id": "tiny",
        "init": "random",
        "architecture": {"hidden_size": 64, "intermediate_size": 96, "layers": 2, "heads": 4, "kv_heads": 2, "max_length": 256},
    },
    "data": {"train": "rows.jsonl", "eval": "held.jsonl", "format": "completion", "max_length": 64},
    "train": {"steps": 8, "batch": {"global": 8}, "precision": "fp32"},
    "optim": {"lr": 0.002, "warmup_steps": 2},
    "checkpoint": {"every": 4},
}
LORA = ("method.adapter=lora", "method.lora.rank=4")
SLICES = [
    pytest.param("name", 4, LORA, id="name-4-lora"),
    pytest.param("hosts", 4, (), id="hosts-4-full"),
    pytest.param("hosts", 4, LORA, id="hosts-4-lora", marks=pytest.mark.thorough(2)),
    pytest.param("name", 4, (), id="name-4-full", marks=pytest.mark.thorough(2)),
]


@pytest.fixture
def slice_of(tmp_path, home, shared_home, trainer_python, monkeypatch, tune):
    """Makes hosts with the trainer's environment, and a clusters.yaml that calls them `slice`, by its name or its addresses, and this
    machine `here`.
    """
    if why := missing():
        pytest.skip(why)
    trainer_python("maxtext")
    with ExitStack() as stack:

        def make(way, count, spare=0):
            lab = stack.enter_context(laboratory(count + spare, shared_home))  # below /tmp each host has its own
            for node in lab.nodes:
                node.configured("AllowUsers root", "PermitRootLogin prohibit-password")  # who may use this tree's environments
                made(node, shared_home)
            first, addresses = lab.nodes[0].host(), [node.address for node in lab.nodes[:count]]
            api = None
            about = {"kind": "tpu", "type": f"v4-{8 * count}", "accelerator": "cpu", "user": "root", "folder": "/run/tune"}
            about |= {"threads": 1, "identity": first.identity, "interpreter": first.interpreter}
            if way == "hosts":
                about |= {"hosts": addresses, "known_hosts": first.known_hosts}
            else:
                api = stack.enter_context(cloud())
                monkeypatch.setenv(OVERRIDE, api.url)
                monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account(tmp_path, api.url)))
                api.hosts = addresses
                api.keys = {node.address: [tuple((node.folder / "hostkey.pub").read_text().split()[:2])] for node in lab.nodes}
                about |= {"project": PROJECT, "zone": ZONE, "pace": 1}
                about |= {"name": "mine"} if way == "name" else {"queued": {"spot": True}}
            if way == "name":
                api.add("mine", kind=about["type"])
            targets = {"slice": about, "here": {"kind": "local", "accelerator": "cpu", "threads": 1}}
            (tmp_path / "clusters.yaml").write_text(json.dumps({"version": 1, "targets": targets}))
            monkeypatch.setenv("TUNE_CLUSTERS", str(tmp_path / "clusters.yaml"))
            return lab.nodes, api

        yield make
    kill_all(pids_of(home, CONTROLLER))  # it stays while an API that is gone has not said that its slices are


def made(node, shared_home):
    """A host as a new VM is: an empty state folder, but for the trainer's environment, which takes too long."""
    node.run("mkdir", "-p", "-m", "700", "/run/tune")
    node.run("ln", "-s", str(shared_home / "envs"), "/run/tune/envs")


def rows(tune, recipe):
    """Files of a recipe, `r.yaml`."""
    said = [{"prompt": f"Say {n}.", "completion": f" {n}!" * (1 + n % 3)} for n in range(72)]
    for name, part in (("rows", said[:64]), ("held", said[64:])):
        (tune.cwd / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    (tune.cwd / "r.yaml").write_text(json.dumps(recipe))


@pytest.mark.timeout(LONG + 300)
@pytest.mark.parametrize(("way", "count", "sets"), SLICES)
def test_workers_train_as_one_process(tune, slice_of, tmp_path, way, count, sets):
    """SUCCEEDED, every loss and the evaluation within 1e-5 of a run on one process, one log a worker, and what the first worker exported
    is the model that one process leaves.
    """
    slice_of(way, count)
    rows(tune, RECIPE)
    more = [word for each in sets for word in ("--set", each)]
    for job, words in {"all": ("--on", "slice", "--set", f"resources.hosts={count}"), "one": ("--on", "here")}.items():
        tune("submit", "r.yaml", "--to", "maxtext", *words, *more, "--id", job)
        tune("wait", job, "--timeout", str(LONG), code=None, timeout=LONG + 60)
        [row] = tune.json("status", job)
        assert (row["state"], row["step"]) == ("SUCCEEDED", 8), (row, tune("logs", job).stdout[-6000:])
    for name in ("loss", "eval_loss"):
        together, alone = curve(tune, "all", name), curve(tune, "one", name)
        assert together.keys() == alone.keys() != set()
        assert max(abs(together[step] - alone[step]) for step in alone) < 1e-5
    for rank in range(count):
        assert f"completed step: {8 if sets else 7}" in tune("logs", "all", "--host", str(rank)).stdout
    for job in ("all", "one"):
        tune("pull", job, "--into", str(tmp_path / job))
    sizes = {job: (tmp_path / job / "work/checkpoint/model.safetensors").stat().st_size for job in ("all", "one")}
    assert sizes["all"] == sizes["one"] > 1000


@pytest.mark.timeout(2 * LONG)
def test_a_job_goes_on_however_often_its_slice_is_taken(tune, home, slice_of, shared_home):
    """Five times the API says that a slice of two workers was preempted, whose hosts have died while MaxText trains on them. Each attempt
    goes on from the last checkpoint that was brought here, on hosts with empty disks, with the losses and rates of a run that nobody
    interrupted; one request is out at a time, and none is left.
    """
    nodes, api = slice_of("queued", 2, spare=2)
    pairs = [nodes[:2], nodes[2:]]
    rows(tune, {**RECIPE, "data": {key: value for key, value in RECIPE["data"].items() if key != "eval"}})
    sets = [f"train.steps={STEPS}", f"checkpoint.every={EVERY}", "checkpoint.keep=2", "checkpoint.resume=true", "retry.lost=1"]
    submit = ("submit", "r.yaml", "--to", "maxtext", "--on", "slice", "--set", "resources.hosts=2")
    submit += tuple(word for each in sets for word in ("--set", each))
    tune(*submit, "--id", "taken")
    for number in range(1, PREEMPTIONS + 1):
        brought = home / "results/taken" / f"{number}.checkpoints/checkpoints.json"
        until(brought.exists, LONG)
        [request] = api.active()
        for node in pairs[0]:
            node.cut()
        api.preempt(request.rpartition("/")[2])
        pairs.reverse()
        for node in pairs[0]:
            node.heal()
        api.hosts = [node.address for node in pairs[0]]
        for node in pairs[1]:
            node.reboot()
            made(node, shared_home)
    tune("wait", "taken", "--timeout", str(LONG), code=None, timeout=LONG + 60)
    [row] = tune.json("status", "taken")
    assert (row["state"], row["step"], row["attempt"]) == ("SUCCEEDED", STEPS, PREEMPTIONS + 1), tune("logs", "taken").stdout[
        -6000:
    ]
    until(lambda: not api.active())
    assert len(api.bodies) == PREEMPTIONS + 1
    files = sorted((home / "results/taken").glob("*.checkpoints/checkpoints.json"))
    begins = [0, *(json.loads(file.read_text())[0]["step"] for file in files)][: PREEMPTIONS + 1]
    assert begins == sorted({begin - begin % EVERY for begin in begins})
    tune(*submit, "--id", "whole")
    tune("wait", "whole", "--timeout", str(LONG), timeout=LONG + 60)
    for name in ("loss", "lr"):
        whole = curve(tune, "whole", name)
        assert list(whole) == list(range(1, STEPS + 1))
        for attempt, begin in enumerate(begins, 1):
            words = ("metrics", "taken", "--name", name, "--attempt", str(attempt))
            seen = [(each["step"], each["value"]) for each in tune.json(*words)["points"]]
            assert [step for step, _ in seen] == list(range(begin + 1, begin + 1 + len(seen))), (attempt, begin)
            assert dict(seen) == pytest.approx({step: whole[step] for step, _ in seen}, rel=1e-6)
