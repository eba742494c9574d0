"""The URI of an image -> its bytes."""
