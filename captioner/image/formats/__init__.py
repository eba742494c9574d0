"""What each format of files needs."""
