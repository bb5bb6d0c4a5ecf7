"""What clusters.yaml may say of a target of kind tpu: each mistake at its line, in the user's words."""

import pytest

from backends.recipe.problems import RecipeError
from orchestrator.executors.registry import kinds
from orchestrator.executors.tpu.check import requests
from orchestrator.executors.tpu.site import TpuSite
from orchestrator.executors.tpu.slices import SliceView, with_nodes
from orchestrator.targets.load import parse

API = "\n    project: my-project\n    zone: us-east5-b"


def targets(text, tmp_path):
    """The targets of a file with one of kind tpu."""
    return parse(f"version: 1\ntargets:\n  s:\n    kind: tpu\n    {text}\n", "clusters.yaml", tmp_path, {}, kinds)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (f"type: v5e-3\n    name: x{API}", 5, "v5e has slices of 1, 4, 8"),
        ("type: v5e-16", 3, "got none of them"),
        (f"type: v5e-16\n    name: x\n    hosts: [a]{API}", 3, "got name and hosts"),
        ("type: v5e-16\n    queued: {}", 3, "queued is looked up in the Cloud TPU API: say project and zone"),
        (f"type: [v5e-16, v6e-8]\n    queued: {{}}{API}", 3, "16 chips on 4 hosts, 16 GiB a chip; v6e-8: 8 chips on 1 host"),
        (f"type: [v5e-8, v6e-8]\n    name: x{API}", 3, "several types or zones are for `queued`"),
        ("type: v5e-16\n    hosts: [10.0.0.1]", 3, "hosts should have 4 addresses, got 1"),
        (f"type: v5e-8\n    queued: {{sopt: true}}{API}", 6, "queued.sopt: is not a key here"),
        (f"type: v7x-8\n    queued: {{}}{API}", 3, "v7x-8 has no usual image of the VMs, name one"),
        (f"type: v5e-8\n    queued: {{spot: true, reserved: true}}{API}", 6, "spot, or out of a reservation"),
        (f"type: v5e-8\n    queued: {{public_key: /etc/hostname}}\n    user: me{API}", 6, "should be a public key"),
        (f"type: v5e-8\n    name: My_TPU{API}", 6, "should be the name of a TPU VM"),
        ("type: v5e-8\n    name: x\n    project: my-project\n    zone: '../x'", 8, "should be a zone"),
        (f"type: v5e-8\n    name: x\n    price: -1{API}", 7, "price"),
        (
            "type: v5e-16\n    slices: 2\n    hosts: [10.0.0.1]",
            3,
            "2 slices of v5e-16: 16 chips on 4 hosts, 16 GiB a chip: hosts should have 8",
        ),
        (f"type: v5e-8\n    name: x\n    slices: 0{API}", 7, "slices"),
        (f"type: v5e-8\n    name: x\n    iap: true{API}", 3, "to workers with `addresses: internal`"),
    ],
)
def test_a_mistake_is_told_where_it_is(tmp_path, text, line, words):
    """File and line, what is wrong, and where a number does not fit the arithmetic."""
    with pytest.raises(RecipeError) as raised:
        targets(text, tmp_path)
    [problem] = raised.value.problems
    assert (problem.line, problem.path.startswith("targets.s")) == (line, True)
    assert words in f"{problem.path}: {problem.rule}"


def test_a_mistyped_key_of_queued_names_those_that_there_are(tmp_path):
    """The keys of that section, and not of the one around it."""
    with pytest.raises(RecipeError) as raised:
        targets(f"type: v5e-8\n    queued: {{spott: true}}{API}", tmp_path)
    assert [each.hint for each in raised.value.problems] == ["did you mean spot?"]


@pytest.mark.parametrize(
    "more", ["", "\n    accelerator: cpu", "\n    via: ssh\n    jump: gate", "\n    iap: true\n    addresses: internal"]
)
def test_what_is_said_survives_the_store(tmp_path, more):
    """A target is kept with its jobs as plain values, and is the same afterwards."""
    said = targets(f"type: [v5e-16, v6e-16]\n    queued: {{spot: true, idle: 5, labels: {{team: a}}}}{API}{more}", tmp_path)
    found = said.candidates["s"]
    again = type(found).from_dict(found.as_dict())
    assert again == found
    assert again.nodes[0].stands_in
    assert (again.target.slice, again.target.hosts, again.target.devices) == ("v5e-16", 4, 1 if "cpu" in more else 4)


def test_several_slices_are_asked_for_as_one(tmp_path):
    """A plan has the hosts of all, and knows how many there are; the request is one, and all chips are paid for."""
    found = targets(f"type: v5e-16\n    slices: 3\n    queued: {{}}{API}", tmp_path).candidates["s"]
    site = TpuSite.of(found)
    assert (found.target.slice, found.target.slices, found.target.hosts, site.chips) == ("v5e-16", 3, 12, 48)
    [spec] = site.body("us-east5-b", "v5litepod-16", "q")["tpu"]["nodeSpec"]
    assert spec["multisliceParams"] == {"nodeCount": 3, "nodeIdPrefix": "q"}
    assert "nodeId" not in spec
    assert site.nodes("q") == ("q-0", "q-1", "q-2")
    text = f"type: v5e-16\n    slices: 2\n    name: mine{API}"
    assert "nodes/mine-1:getGuestAttributes" in requests(targets(text, tmp_path).candidates["s"])


@pytest.mark.parametrize(
    ("states", "state"),
    [
        (["READY", "READY"], "ready"),
        (["READY", "CREATING"], "provisioning"),
        (["READY", "PREEMPTED"], "over"),
        (["CREATING", None], "over"),
    ],
)
def test_several_slices_are_as_ready_as_the_least(states, state):
    """And are gone with the first that is: they train as one."""
    nodes = [word and {"state": word, "createTime": f"2026-01-0{day}T00:00:00Z"} for day, word in enumerate(states, 1)]
    view = with_nodes(SliceView("q", "z", created=1.0), nodes)
    assert view.state == state
    assert (view.name, view.created, view.began) == ("q", 1.0, 1767225600.0)
