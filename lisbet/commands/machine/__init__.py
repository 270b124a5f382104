"""Commands about this machine, its runs and jobs on a cluster."""
