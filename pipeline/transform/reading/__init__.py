"""How the value of a field becomes the value of an attribute: one file per family of fields."""
