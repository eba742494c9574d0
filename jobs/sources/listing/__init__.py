"""The images in a folder of this machine or of a store, in the order of their names."""
