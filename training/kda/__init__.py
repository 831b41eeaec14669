"""Kimi Delta Attention in place of attention."""
