"""Sampling side by side: the slot engine, transformers' `generate`, llama.cpp."""
