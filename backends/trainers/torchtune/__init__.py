"""torchtune 0.6."""
