"""A simulator: several nodes, a CA and a storage in one process, on a clock that moves as fast as they work.

Everything is drawn from one seed: latencies, faults, crashes, visitors. The lifecycle code is the real one; the clock,
the threads, the storage server and the CA are models. ``scripts/simulate`` runs it.
"""
