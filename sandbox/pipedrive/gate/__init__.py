"""What a request passes on its way in and out: tokens, limits, the ledger, faults."""
