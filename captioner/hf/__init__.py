"""Captions by image-to-text models of Hugging Face."""
