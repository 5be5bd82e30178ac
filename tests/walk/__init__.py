"""The product as a person meets it: every part real, the ways of the README walked to their end."""
