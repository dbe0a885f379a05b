"""What a load costs: requests, makespan, time and memory, against the bound and against other ways."""
