"""The chat page at `/`: Gradio, in the same process and on the same runtime as the API."""
