"""LLaMA-Factory: its configs are read, and no job is run with it."""
