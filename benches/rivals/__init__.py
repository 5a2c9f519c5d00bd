"""What a user would pick instead, written from the published descriptions of such programs, for side-by-side timing."""
