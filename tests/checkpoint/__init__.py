"""Results of earlier runs."""
