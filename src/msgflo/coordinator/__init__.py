"""Who joins the participants: the graph that is wanted, the network that is seen, and the way."""
