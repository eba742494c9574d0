"""Archives as file systems, in bounded memory."""
