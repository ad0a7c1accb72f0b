"""The models and the blocks they are made of."""
