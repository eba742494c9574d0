"""The sources minus the table: what a run has to do."""
