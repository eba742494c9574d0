"""What the captions of a run are like, and whether that is good enough."""
