"""What a run tells: estimates, metrics, pictures, model cards."""
