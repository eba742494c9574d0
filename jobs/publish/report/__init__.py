"""The report that people read: one HTML file about a run, or about a whole table.

collect (rows), pace (events) -> sections, charts, gallery -> run_page or table_page -> page (plain
data) -> write. `words` has the plain words.
"""
