"""LitGPT 0.5."""
