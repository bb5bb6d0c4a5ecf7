"""What can be done with recipes, targets and jobs: shared by the command line, pages and Python callers (`import tunesmith`).

Functions take values, return values and raise the errors of `client.errors`. None prints, exits, or reads the command line.
What is worth a word on the way goes to a function `say` that the caller gives. Heavy modules are imported where they are used.
"""
