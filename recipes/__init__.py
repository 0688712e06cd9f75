"""The programs: each reads from top to bottom and starts as `python -m recipes.NAME`."""
