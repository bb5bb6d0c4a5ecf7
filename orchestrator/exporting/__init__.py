"""A plan as a task file of another orchestrator, which runs it without us: SkyPilot, dstack, Kubeflow Trainer, Slurm. Pure: a text is made."""
