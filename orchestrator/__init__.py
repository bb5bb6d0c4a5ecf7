"""Acts: carries plans to machines, follows them, keeps what happened."""
