"""Captioned images, from their files to tensors."""
