"""Attempts at what other hosts have: what went wrong, whose fault it is, and when to try again."""
