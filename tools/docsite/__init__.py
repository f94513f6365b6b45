"""The documentation's site: the pages of the repository, and a reference that is made of the code at every build."""
