"""What an attempt needs at its host before it starts."""
