"""SOURCE -> a stream of image records."""
