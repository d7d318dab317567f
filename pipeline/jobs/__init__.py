"""Jobs: long work that a person or a remote system requested. `runtime` runs them, a handler each."""
