"""The records that the parts of Captioner exchange: images, table rows and reports."""
