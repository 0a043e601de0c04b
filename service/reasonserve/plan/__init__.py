"""How many requests fit: sizing from a model's shape and a GPU's memory. Pure arithmetic; nothing is loaded."""
