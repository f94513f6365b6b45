"""Rows and tokens: JSONL reading with all its errors, chat rendering; integers only, no tensors."""
