"""From sources to rows of tokens and labels."""
