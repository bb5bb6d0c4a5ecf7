"""`python -m orchestrator.cli`, for machines where another `tune` comes first."""

from orchestrator.cli import main

main()
