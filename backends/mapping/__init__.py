"""How a recipe's leaves become native keys, and back: rows, and the named couples that several trainers share."""
