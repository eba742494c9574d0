"""Targets of coverage-guided fuzzing, and the process that fuzzes one of them.

Each target module has `seeds()`, inputs to begin with, and `target(folder)`, a context manager that
gives a function. The function takes an input, and raises for whatever may not happen.
"""
