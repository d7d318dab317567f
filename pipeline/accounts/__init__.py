"""Operators' accounts: passwords, logins and their throttle, sessions, second factors, API keys."""
