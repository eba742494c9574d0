"""Formats that are one file, or a stream: CSV, JSON lines and what is made like them."""
