"""From token bytes to the text of an answer: UTF-8, end of turn, channels, stop strings."""
