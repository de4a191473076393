"""What happened: recorded packets, and the ways of messages."""
