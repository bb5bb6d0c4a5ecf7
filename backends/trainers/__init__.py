"""The trainers, a folder each; `backends/registry.py` lists them."""
