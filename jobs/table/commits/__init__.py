"""The commit of a part to the table: whole, once, and only by its owner."""
