"""Sweeps, as far as they are arithmetic: which points there are, and which of them are worth going on with. Pure."""
