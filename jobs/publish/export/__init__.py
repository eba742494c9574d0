"""Texts for websites, photo managers, training tools and search engines, by one policy."""
