"""What is done with a model once it is trained: stages, each planned like a trainer and run as a job of its own.

A stage is a module here that turns its section of the recipe into a plan: files, steps, the locked environment, what is promised. Its
programs, which run in that environment, are in `shims/`. Like everything in `backends`, stages decide and do not act.
"""
