"""Unsloth 2026.10."""
