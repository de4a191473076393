"""What the components of this example share. Nothing in here knows of MsgFlo."""
