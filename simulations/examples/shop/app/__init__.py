"""A web shop whose package happens to be called ``app``."""
