"""What goes over the wire, as pydantic models: they check requests, and document and test responses."""
