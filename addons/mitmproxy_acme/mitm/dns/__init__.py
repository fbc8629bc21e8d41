"""DNS: a name server that answers for the zones of dns-01 challenges, and refuses everything else."""
