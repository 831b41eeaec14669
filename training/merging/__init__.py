"""Weights between two models."""
