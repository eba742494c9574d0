"""The tasks of a run: what each captions, may spend and has spent."""
