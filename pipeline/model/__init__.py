"""The network, its affinities, its losses, and the file its weights are kept in. Needs torch."""
