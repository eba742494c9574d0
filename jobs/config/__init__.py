"""What a job is: its options, from flags and a job file, and whether they are possible."""
