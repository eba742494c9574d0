"""Parquet files: opened and read within bounds, whatever a file claims of itself."""
