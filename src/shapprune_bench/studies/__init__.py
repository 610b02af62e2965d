"""Studies of one question each, on networks of their own."""
