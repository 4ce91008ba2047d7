"""How a network is trained: crops and their augmentation, the loop, validation."""
