"""Many runs of one preset: a grid of its fields, local processes or one program that take them, and their table."""
