"""The model as captioning runs it: the same captions, faster."""
