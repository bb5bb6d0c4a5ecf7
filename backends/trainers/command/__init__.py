"""Any command line as a trainer."""
