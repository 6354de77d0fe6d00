"""The asynchronous half of InstaInstru: what runs in production."""
