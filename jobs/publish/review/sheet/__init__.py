"""The spreadsheet: written, and taken back when people have filled it in."""
