"""What the project costs in time and memory, beside other ways to do the same work: `make bench`."""
