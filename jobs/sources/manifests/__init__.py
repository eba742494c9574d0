"""Files that list images: CSV, JSON lines, Parquet, text."""
