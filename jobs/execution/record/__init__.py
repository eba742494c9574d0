"""What is recorded of a run: its counts, its events, its progress and its report."""
