"""The table's rows with what people decided about them, and conditions on them."""
