"""How good captions are, and how far their confidence can be trusted."""
