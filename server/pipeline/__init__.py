"""From a recipe to a served model in steps, of which each is done only when something it depends on has changed."""
