"""The trainers' configs as they are in the wild, one module a trainer: how one is recognised, what its spelling means in leaves of
the recipe, and what else its keys do. Read by `backends.importing`, which holds them against the trainers' tables.
"""
