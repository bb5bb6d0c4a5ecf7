"""Decides: recipe and target in, plan out. Nothing here reads a file, opens a socket or starts a process."""
