"""The runs of a table: the rows and the report of one, and the removal of old ones."""
