"""The only hands on the model: loading, attention, LoRA, head, scoring, decoding."""
