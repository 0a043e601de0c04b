"""The TLS front: what clients reach from other machines, and what keeps the rest on this one."""
