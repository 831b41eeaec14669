"""What a conversion lost: an artifact compared with its source, and the record of it."""
