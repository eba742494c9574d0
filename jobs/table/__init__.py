"""OUT: the caption table, and who may write to it."""
