"""Questions about the tables: what a trainer has, what differs between two configs, what moving to another trainer changes."""
