"""TPU slices by name: chips, hosts, memory.

Source: https://cloud.google.com/tpu/docs/system-architecture-tpu-vm (each version's page), and for how JAX counts
devices MaxText, `maxtext/utils/accelerator_to_spec_map.py`, against which the tests hold this table.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from backends.records import dataclass


class NoSlice(ValueError):
    """A name means no TPU slice; with the sizes that there are."""


class Generation(NamedTuple):
    """What holds for all slices of a TPU version."""

    name: str
    """As people say: `v5e`."""
    api: str
    """As Cloud TPU's accelerator types begin: `v5litepod`."""
    hbm_gib: int
    """Memory of one chip."""
    cores: int
    """TensorCores of a chip that the number in a slice's name counts: 1 where it counts chips."""
    devices: int
    """JAX devices of a chip: v4 and v5p join two cores into one, v7x does not."""
    largest: int
    """The largest number in a name."""
    flat: bool
    """Chips lie in a plane, in powers of two; a single host may have 8."""
    tflops: float
    """Of a chip, in bfloat16."""


GENERATIONS = (
    Generation("v4", "v4", 32, 2, 1, 4096, False, 275),
    Generation("v5e", "v5litepod", 16, 1, 1, 256, True, 197),
    Generation("v5p", "v5p", 95, 2, 1, 17920, False, 459),
    Generation("v6e", "v6e", 32, 1, 1, 256, True, 918),
    Generation("v7x", "tpu7x", 192, 2, 2, 18432, False, 2307),
)
HOST_CHIPS = 4
"""Chips of a host of any slice with several hosts."""
_NAME = re.compile(r"(v\d+[a-z]*|tpu7x)-([1-9]\d{0,5})")


@dataclass(frozen=True)
class TpuSlice:
    """One slice."""

    generation: Generation
    number: int
    """In its name: chips, or TensorCores."""

    @classmethod
    def named(cls, name: str) -> TpuSlice:
        """The slice of a name: `v5e-16`, or as the API calls it, `v5litepod-16`.

        Raises:
            NoSlice: there is none.
        """
        found = _NAME.fullmatch(name)
        generation = next((each for each in GENERATIONS if found and found[1] in (each.name, each.api)), None)
        if not found or not generation:
            known = ", ".join(each.name for each in GENERATIONS)
            raise NoSlice(f"{name!r} is no TPU slice: a version of {known} and a size, such as v5e-16 or v4-32")
        made = cls(generation, int(found[2]))
        if fault := made._fault():
            raise NoSlice(f"{name}: {fault}")
        return made

    def _fault(self) -> str:
        """What is wrong with its size; empty when nothing is. Which shapes there are of a large one only the API knows."""
        each = self.generation
        sizes = [1, *(2**power for power in range(2, 9))] if each.flat else []
        if sizes and self.number not in sizes:
            return f"{each.name} has slices of {', '.join(map(str, sizes))} chips"
        if each.name == "v7x" and self.number == each.cores:
            return ""  # one chip
        if not each.flat and (self.number % (HOST_CHIPS * each.cores) or self.number > each.largest):
            least = HOST_CHIPS * each.cores
            return (
                f"the number counts TensorCores, {each.cores} a chip and {least} a host of {HOST_CHIPS} chips: "
                f"a multiple of {least}, up to {each.largest}"
            )
        return ""

    @property
    def name(self) -> str:
        """As people say."""
        return f"{self.generation.name}-{self.number}"

    @property
    def api(self) -> str:
        """Cloud TPU's accelerator type."""
        return f"{self.generation.api}-{self.number}"

    @property
    def chips(self) -> int:
        """Of all hosts."""
        return self.number // self.generation.cores

    @property
    def hosts(self) -> int:
        """VMs, each with an address of its own."""
        alone = 2 * HOST_CHIPS if self.generation.flat else HOST_CHIPS
        return 1 if self.chips <= alone else self.chips // HOST_CHIPS

    @property
    def devices(self) -> int:
        """JAX devices of all hosts: `jax.device_count()`."""
        return self.chips * self.generation.devices

    @property
    def host_devices(self) -> int:
        """JAX devices of each host: `jax.local_device_count()`."""
        return self.devices // self.hosts

    @property
    def device_gib(self) -> float:
        """Memory of one JAX device in GiB."""
        return self.generation.hbm_gib / self.generation.devices

    @property
    def words(self) -> str:
        """`v5e-16: 16 chips on 4 hosts, 16 GiB a chip`."""
        hosts = "1 host" if self.hosts == 1 else f"{self.hosts} hosts"
        return f"{self.name}: {self.chips} chip{'s' * (self.chips > 1)} on {hosts}, {self.generation.hbm_gib} GiB a chip"
