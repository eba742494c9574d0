"""What `openai_captioner` needs: questions to a server with a chat API, and what comes back."""
