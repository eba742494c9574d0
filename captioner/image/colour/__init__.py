"""Colours: from what a file says about them to sRGB."""
