"""What the parts of Captioner exchange: records in, the caption table and the report out."""
