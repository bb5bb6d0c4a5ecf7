"""Who grants devices and starts an attempt."""
