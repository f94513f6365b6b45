"""What the server shows of itself to monitors: figures and traces."""
