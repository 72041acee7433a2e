"""A package as a user would write it: methods of its own, of public names alone."""
