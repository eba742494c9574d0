"""The processes of a run: those of this machine, or those of a scheduler."""
