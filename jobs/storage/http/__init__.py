"""Which hosts HTTP may reach, and with which headers."""
