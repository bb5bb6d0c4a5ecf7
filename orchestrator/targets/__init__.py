"""Where jobs can run: clusters.yaml, the machines behind a target, what they say of themselves."""
