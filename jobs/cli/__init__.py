"""The command `captioner`, and all text that it prints."""
