"""Read from the remote systems, without changing the data."""
