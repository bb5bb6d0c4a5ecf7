"""Ways to reach a machine. Each module keeps the contract of `base`, and one test suite runs over all of them."""
