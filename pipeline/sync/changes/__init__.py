"""Changes: what deliveries and messages of Hull leave behind, one for each record."""
