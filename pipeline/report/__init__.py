"""Pictures of a run. The only package that knows matplotlib."""
