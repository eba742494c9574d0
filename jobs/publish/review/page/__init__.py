"""The page: a small web application on this machine."""
