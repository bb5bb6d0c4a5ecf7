"""The page: the same use-cases as the command line, in a browser. An extra (`pip install tunesmith[web]`): starlette, uvicorn, Jinja2.

It has no logic of its own: `views` asks `orchestrator.client`, templates show the values, and forms call what commands call.
"""
