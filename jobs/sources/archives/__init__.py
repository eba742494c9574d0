"""Archives as sources: tar files, and what no archive may hold."""
