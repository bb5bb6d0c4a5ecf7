"""MaxText 0.2."""
