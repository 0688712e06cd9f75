"""The bookkeeping that every recipe shares and that knows no model."""
