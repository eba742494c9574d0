"""Texts that a spreadsheet would run as formulas."""

HOSTILE = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "'=1", "a;=1+1", "a\n=1", 'a,"=1', "''-", "\r@"]
