"""The part that runs on the host. Standard library only."""
