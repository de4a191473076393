"""How others look at a network and steer it: the FBP runtime protocol, and an extension of it."""
