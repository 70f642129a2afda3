"""A checker of histories: what clients of a cluster sent, were told and read, and what may not be in it."""
