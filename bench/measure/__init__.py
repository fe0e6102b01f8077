"""What `bench/run` is made of: the systems, the ways of measuring them, and the table."""
