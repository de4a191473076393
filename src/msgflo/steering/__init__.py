"""Between the clients of a runtime and what runs: what they want is carried out here."""
