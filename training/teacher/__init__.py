"""Where the signal comes from: a text cache, a logit cache, or a model in memory."""
