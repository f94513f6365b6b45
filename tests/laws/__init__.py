"""What must hold after every test of a kind: laws that tests share, and no test of its own."""
