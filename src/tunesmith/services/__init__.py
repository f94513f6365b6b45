"""What the product does, one file per resource; the doors call these."""
