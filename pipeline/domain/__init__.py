"""Words: frozen values that every room may use."""
