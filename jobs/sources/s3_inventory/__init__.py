"""S3 Inventory as a source."""
