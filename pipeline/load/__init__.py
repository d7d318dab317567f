"""The other hand: what transform decided, written to the remote systems and to our tables."""
