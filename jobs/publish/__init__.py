"""What people do with a table: review it, find images in it, publish and report it."""
