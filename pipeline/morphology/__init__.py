"""The shapes of segments: surfaces and centre lines, and the files that viewers read them from."""
