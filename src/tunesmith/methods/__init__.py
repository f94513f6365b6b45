"""Fine-tuning methods, one file each: what is a row, what is an example, what is its loss."""
