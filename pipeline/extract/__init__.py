"""One hand: what the remote systems say, brought in as it came."""
