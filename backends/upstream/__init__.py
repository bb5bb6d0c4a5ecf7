"""What the pinned trainers say of themselves: known keys, defaults and locked environments, with the scripts that ask them."""
