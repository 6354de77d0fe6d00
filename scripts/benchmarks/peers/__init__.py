"""The same tasks, written for each system as its documentation does."""
