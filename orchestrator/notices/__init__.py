"""Notices of what happened to jobs and hosts, sent to services and the desktop by a process beside the controller."""
