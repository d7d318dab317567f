"""How the value of an attribute becomes the value of a field: one file per question."""
