"""Telling the world: webhooks."""
