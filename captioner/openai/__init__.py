"""Captions by a server with a chat API: questions to it, and what comes back."""
