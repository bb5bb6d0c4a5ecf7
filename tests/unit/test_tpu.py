"""TPU slices: what their names mean, held against MaxText's own table."""

import ast
from math import prod

import pytest

from backends.tpu import GENERATIONS, NoSlice, TpuSlice


@pytest.mark.parametrize(
    ("name", "chips", "hosts", "devices", "gib"),
    [
        ("v4-8", 4, 1, 4, 32),
        ("v4-32", 16, 4, 16, 32),
        ("v5e-1", 1, 1, 1, 16),
        ("v5e-8", 8, 1, 8, 16),
        ("v5litepod-16", 16, 4, 16, 16),
        ("v5e-256", 256, 64, 256, 16),
        ("v5p-8", 4, 1, 4, 95),
        ("v5p-128", 64, 16, 64, 95),
        ("v6e-8", 8, 1, 8, 32),
        ("v6e-256", 256, 64, 256, 32),
        ("tpu7x-2", 1, 1, 2, 96),
        ("v7x-128", 64, 16, 128, 96),
    ],
)
def test_what_a_name_means(name, chips, hosts, devices, gib):
    """Chips, hosts, JAX devices and memory of a device follow from the name, whichever of its two spellings."""
    found = TpuSlice.named(name)
    assert (found.chips, found.hosts, found.devices, found.device_gib) == (chips, hosts, devices, gib)
    assert found.host_devices * found.hosts == found.devices
    assert TpuSlice.named(found.api) == TpuSlice.named(found.name) == found


@pytest.mark.parametrize(
    "name", ["v5e", "v5e-3", "v5e-512", "v4-4", "v4-12", "v3-8", "v5p-0", "v7x-4", "tpu-8", "v6e-16; id", "v4-8192"]
)
def test_a_name_that_means_none(name):
    """It is refused, with the sizes that there are."""
    with pytest.raises(NoSlice, match=r"slices of|counts TensorCores|is no TPU slice"):
        TpuSlice.named(name)


def maxtext_table(envs):
    """MaxText's own: name, chips, JAX devices. It is read, not run."""
    files = list(envs.glob("maxtext-*/lib/python*/site-packages/maxtext/utils/accelerator_to_spec_map.py"))
    if not files:
        pytest.skip("MaxText's environment was not made yet")
    for node in ast.walk(ast.parse(files[0].read_text("utf-8"))):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                platform, shape, _, _, devices, _ = (ast.literal_eval(each) for each in value.args)
                if platform == "tpu":
                    yield key.value, prod(map(int, shape.split(":")[1].split("x"))), devices


def test_maxtext_says_the_same(shared_home):
    """Each slice that MaxText knows has as many chips and JAX devices here."""
    table = list(maxtext_table(shared_home / "envs"))
    assert {name.split("-")[0] for name, _, _ in table} == {each.api if each.name == "v7x" else each.name for each in GENERATIONS}
    for name, chips, devices in table:
        found = TpuSlice.named(name)
        assert (name, found.chips, found.devices) == (name, chips, devices)
