"""People decide about captions: in a page of their browser, or in a spreadsheet."""
