"""How good a segmentation is: counts that add, and scores made of them."""
