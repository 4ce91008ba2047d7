"""Extensions of pea-connectomics: a backbone, an agglomeration, a file format."""
