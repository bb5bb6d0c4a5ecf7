"""The recipe: its schema, how its text is checked, what its values mean."""
