"""A reader of news feeds."""
