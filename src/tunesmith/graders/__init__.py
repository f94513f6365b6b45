"""Graders, one file each; they arrive with reinforcement fine-tuning."""
