"""What a network is to shapprune."""
