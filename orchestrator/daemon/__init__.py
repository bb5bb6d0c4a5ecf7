"""The controller's process: its loop, and how others start and wake it."""
