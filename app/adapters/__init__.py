"""The outside: whatever answers over a network or writes outside the database."""
