"""The model that is trained: opened, made from scratch, adapted, saved."""
