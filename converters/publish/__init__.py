"""What stands beside published artifacts: sidecars for other programs, a model card, a chart, measured speeds."""
