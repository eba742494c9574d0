"""Find images: by their words, by what they look like, and those that are alike."""
