"""What is learned, beside TRL's trainers."""
