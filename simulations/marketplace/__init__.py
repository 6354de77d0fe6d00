"""The marketplace on virtual time: its people, its days, and what must hold in them."""
