"""How the machines of a Ray cluster are reached: through its Jobs API, and a relay that runs in the cluster as a job of ours."""
