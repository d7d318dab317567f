"""Write what transform decided to the remote systems and to our tables."""
