"""Every front door: HTTP, the chat page, the command line."""
