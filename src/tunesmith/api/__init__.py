"""The doors: OpenAI's wire, one file per resource."""
