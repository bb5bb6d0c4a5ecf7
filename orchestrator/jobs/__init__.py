"""The life of a job: what happens next, on which devices, and whether it is tried again."""
