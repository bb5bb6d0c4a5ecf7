"""A trainer's own config becomes a recipe."""
