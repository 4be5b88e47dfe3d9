"""Pictures and tables made from measurements."""
