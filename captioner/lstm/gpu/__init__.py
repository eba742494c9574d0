"""A GPU process: one process that searches for many others, which only decode."""
