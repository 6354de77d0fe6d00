"""The schedule over a year with two beats that are killed again and again."""
