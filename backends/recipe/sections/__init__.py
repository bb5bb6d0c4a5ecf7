"""The sections of a recipe, with the meaning of every leaf; `backends/recipe/schema.py` puts them together."""
