"""The server's side of inference, behind the Inference port; never loads torch."""
