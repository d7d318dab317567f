"""Operators' accounts: passwords, logins and what slows down guessing, sessions, second factors, keys for scripts."""
