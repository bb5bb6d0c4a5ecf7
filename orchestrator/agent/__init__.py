"""What runs on a host: the standard library of CPython 3.8 or newer, Linux, no root, nothing installed beforehand."""

SERVED = (
    *(
        "files",
        "identity",
        "network",
        "processes",
        "gpus",
        "attempts",
        "tpus",
        "leases",
        "utilization",
        "causes",
        "supervisor",
        "runner",
        "blobs",
    ),
    *("slurm_command", "slurm_site", "slurm_queue", "slurm_submit", "slurm_array", "slurm"),
    "storage",
    "server",
)
"""Modules that a host gets through the pipe of a connection, in an order in which each finds what it imports."""
PROVISIONING = ("__main__", "files", "identity", "processes", "turns", "uv_process", "uv_settings", "provision")
"""Modules that a host gets with an attempt whose environment is to be made there."""
