"""The report that people read: one HTML file about a run, or about a whole table.

collect (rows), pace (events) -> sections, charts, gallery, pictures -> run_page or table_page
-> page (HTML) -> write. `words` has the plain words, `privacy` what may not be shown.
"""
