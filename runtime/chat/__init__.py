"""From messages to a prompt: chat templates and what follows from them."""
