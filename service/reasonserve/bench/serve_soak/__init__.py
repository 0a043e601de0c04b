"""The data plane under load for long: a local stack with real engines, clients that leave, parts that are killed."""
