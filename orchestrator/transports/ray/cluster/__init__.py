"""Programs that run in a Ray cluster as jobs of ours: Ray's Python, `ray`, and the standard library."""
