"""How the part of a partition gets into the table: whole, once, and only by its owner."""
