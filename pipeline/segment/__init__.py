"""Arrays in, arrays out: affinities, fragments, region graph, agglomeration."""
