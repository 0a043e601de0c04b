"""The local stack: one machine, one supervisor process, every part as in a cluster."""
