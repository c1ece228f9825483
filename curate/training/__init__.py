"""Training and judging classifiers."""
