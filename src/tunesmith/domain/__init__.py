"""The nouns of the product and their laws, free of any database, web or tensor library."""
