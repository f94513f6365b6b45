"""Tunesmith: a self-hosted, drop-in replacement for OpenAI's fine-tuning service on open-weight models."""

__version__ = "0.1.0"
