"""The base models shipped inside the package."""
