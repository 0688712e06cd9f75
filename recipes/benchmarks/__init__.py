"""What `recipes.bench` measures: each case against the usual way of doing the same."""
