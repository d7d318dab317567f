"""One connector: its setup, credentials, settings, webhooks and status."""
