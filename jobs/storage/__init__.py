"""Bytes at a path or URL, and what goes wrong on the way to them; knows no image and no table."""
