"""Values in, what a person reads out: no module here prints, exits or reads a file; `live` writes to the stream it is given.

Import the module that is needed: `rich` and `plotext` load with the first use of `live` and `plot`, and nothing else is heavy.
"""
