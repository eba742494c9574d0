"""Many small files of the table -> few large ones, while others read it."""
