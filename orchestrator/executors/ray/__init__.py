"""Ray grants the devices; what it granted is ours to start and to watch, as on machines of our own."""
